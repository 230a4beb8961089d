-- Rows that realtime processes of a cluster have and that queries do not read from segments yet: who has them, and from
-- which position of its stream on, as JSON. Changed together with the segments that hold some of them.
CREATE TABLE IF NOT EXISTS sinks (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) NOT NULL,
    payload LONGTEXT NOT NULL,
    KEY sinks_by_data_source (dataSource)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
