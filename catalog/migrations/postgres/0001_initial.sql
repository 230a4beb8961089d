-- The first nine columns of `segments` are Druid's, so that a row written by hand is a row; ours may be null there.
-- Texts are compared byte by byte.
CREATE TABLE segments (
    id VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) COLLATE "C" NOT NULL,
    created_date VARCHAR(255) COLLATE "C" NOT NULL,
    start VARCHAR(255) COLLATE "C" NOT NULL,
    "end" VARCHAR(255) COLLATE "C" NOT NULL,
    partitioned BOOLEAN NOT NULL,
    version VARCHAR(255) COLLATE "C" NOT NULL,
    used BOOLEAN NOT NULL,
    payload BYTEA NOT NULL,
    used_status_last_updated VARCHAR(255) COLLATE "C",
    -- Half-open span in milliseconds, as `start` and `end` say it.
    start_ms BIGINT,
    end_ms BIGINT,
    partition_num BIGINT,
    uid VARCHAR(26) COLLATE "C",
    schema_id VARCHAR(64) COLLATE "C",
    num_rows BIGINT,
    size BIGINT,
    hash VARCHAR(255) COLLATE "C",
    -- Earliest and latest row time, both inclusive; null without rows.
    min_time BIGINT,
    max_time BIGINT,
    publish_id VARCHAR(255) COLLATE "C",
    created_rev BIGINT,
    removed_rev BIGINT,
    -- 0: there; 1: being killed, cannot be marked used again; 2: burned, the bytes are gone, the id stays taken.
    kill_state INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX segments_by_time ON segments (dataSource, used, end_ms, start_ms);
CREATE INDEX segments_by_uid ON segments (uid);

-- `rev` counts the commits that changed a data source's segments; its row is the lock that puts them in order.
CREATE TABLE data_sources (
    name VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    created_date VARCHAR(255) COLLATE "C" NOT NULL,
    rev BIGINT NOT NULL
);

CREATE TABLE segment_schemas (
    id VARCHAR(64) COLLATE "C" NOT NULL PRIMARY KEY,
    columns TEXT NOT NULL
);

CREATE TABLE publishes (
    publish_id VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) COLLATE "C" NOT NULL,
    created_date VARCHAR(255) COLLATE "C" NOT NULL,
    rev BIGINT NOT NULL
);

-- Files that are about to be put into deep storage. Publishing takes them off the list; what is still on it when a
-- process starts was never published.
CREATE TABLE pushes (
    load_spec VARCHAR(700) COLLATE "C" NOT NULL PRIMARY KEY,
    publish_id VARCHAR(255) COLLATE "C" NOT NULL
);

CREATE TABLE tasks (
    id VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    type VARCHAR(255) COLLATE "C" NOT NULL,
    dataSource VARCHAR(255) COLLATE "C" NOT NULL,
    created_date VARCHAR(255) COLLATE "C" NOT NULL,
    status VARCHAR(255) COLLATE "C" NOT NULL,
    duration_ms BIGINT,
    error_msg TEXT,
    payload TEXT NOT NULL,
    report TEXT
);
CREATE INDEX tasks_by_date ON tasks (created_date);
