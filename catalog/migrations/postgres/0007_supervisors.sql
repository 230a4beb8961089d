-- What keeps streams flowing into data sources: the spec of each, as JSON, as it was submitted.
CREATE TABLE supervisors (
    id VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) COLLATE "C" NOT NULL,
    created_date VARCHAR(255) NOT NULL,
    suspended BOOLEAN NOT NULL,
    payload TEXT NOT NULL
);

-- Which stream it was whose positions are kept, as JSON: one that is made anew has the name of the one before.
CREATE TABLE stream_sources (
    stream VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    payload TEXT NOT NULL
);
