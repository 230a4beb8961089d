-- How far each part of a stream was published: changed together with the segments that hold its rows.
CREATE TABLE IF NOT EXISTS stream_positions (
    stream VARCHAR(255) NOT NULL,
    part BIGINT NOT NULL,
    reached BIGINT NOT NULL,
    PRIMARY KEY (stream, part)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
