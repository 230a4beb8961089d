-- How far each part of a stream was published: changed together with the segments that hold its rows.
CREATE TABLE stream_positions (
    stream VARCHAR(255) COLLATE "C" NOT NULL,
    part BIGINT NOT NULL,
    reached BIGINT NOT NULL,
    PRIMARY KEY (stream, part)
);
