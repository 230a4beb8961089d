-- Definitions are not part of a transaction here: each can be repeated, should the first run have been cut short.
-- The first nine columns of `segments` are Druid's, so that a row written by hand is a row; ours may be null there.
-- Texts are compared byte by byte.
CREATE TABLE IF NOT EXISTS segments (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) NOT NULL,
    created_date VARCHAR(255) NOT NULL,
    start VARCHAR(255) NOT NULL,
    `end` VARCHAR(255) NOT NULL,
    partitioned BOOLEAN NOT NULL,
    version VARCHAR(255) NOT NULL,
    used BOOLEAN NOT NULL,
    payload LONGBLOB NOT NULL,
    used_status_last_updated VARCHAR(255),
    -- Half-open span in milliseconds, as `start` and `end` say it.
    start_ms BIGINT,
    end_ms BIGINT,
    partition_num BIGINT,
    uid VARCHAR(26),
    schema_id VARCHAR(64),
    num_rows BIGINT,
    size BIGINT,
    hash VARCHAR(255),
    -- Earliest and latest row time, both inclusive; null without rows.
    min_time BIGINT,
    max_time BIGINT,
    publish_id VARCHAR(255),
    created_rev BIGINT,
    removed_rev BIGINT,
    -- 0: there; 1: being killed, cannot be marked used again; 2: burned, the bytes are gone, the id stays taken.
    kill_state INTEGER NOT NULL DEFAULT 0,
    INDEX segments_by_time (dataSource, used, end_ms, start_ms),
    INDEX segments_by_uid (uid)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- `rev` counts the commits that changed a data source's segments; its row is the lock that puts them in order.
CREATE TABLE IF NOT EXISTS data_sources (
    name VARCHAR(255) NOT NULL PRIMARY KEY,
    created_date VARCHAR(255) NOT NULL,
    rev BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS segment_schemas (
    id VARCHAR(64) NOT NULL PRIMARY KEY,
    columns LONGTEXT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS publishes (
    publish_id VARCHAR(255) NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) NOT NULL,
    created_date VARCHAR(255) NOT NULL,
    rev BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Files that are about to be put into deep storage. Publishing takes them off the list; what is still on it when a
-- process starts was never published.
CREATE TABLE IF NOT EXISTS pushes (
    load_spec VARCHAR(700) NOT NULL PRIMARY KEY,
    publish_id VARCHAR(255) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS tasks (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    type VARCHAR(255) NOT NULL,
    dataSource VARCHAR(255) NOT NULL,
    created_date VARCHAR(255) NOT NULL,
    status VARCHAR(255) NOT NULL,
    duration_ms BIGINT,
    error_msg LONGTEXT,
    payload LONGTEXT NOT NULL,
    report LONGTEXT,
    INDEX tasks_by_date (created_date)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
