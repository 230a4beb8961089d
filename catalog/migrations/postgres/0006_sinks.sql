-- Rows that realtime processes of a cluster have and that queries do not read from segments yet: who has them, and from
-- which position of its stream on, as JSON. Changed together with the segments that hold some of them.
CREATE TABLE sinks (
    id VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    dataSource VARCHAR(255) COLLATE "C" NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX sinks_by_data_source ON sinks (dataSource);
