-- What keeps streams flowing into data sources: the spec of each, as JSON, as it was submitted.
CREATE TABLE IF NOT EXISTS supervisors (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) NOT NULL,
    created_date VARCHAR(255) NOT NULL,
    suspended BOOLEAN NOT NULL,
    payload MEDIUMTEXT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which stream it was whose positions are kept, as JSON: one that is made anew has the name of the one before.
CREATE TABLE IF NOT EXISTS stream_sources (
    stream VARCHAR(255) NOT NULL PRIMARY KEY,
    payload TEXT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
