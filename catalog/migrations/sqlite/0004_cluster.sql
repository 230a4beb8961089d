-- Whether queries ask for a used segment. One that a cluster has just published is dormant until it is served.
ALTER TABLE segments ADD COLUMN dormant BOOLEAN NOT NULL DEFAULT FALSE;

-- The servers of a cluster: what each says of itself, as JSON, and when it last did, by this database's clock.
CREATE TABLE servers (
    name VARCHAR(255) NOT NULL PRIMARY KEY,
    incarnation VARCHAR(255) NOT NULL,
    payload TEXT NOT NULL,
    renewed_ms BIGINT NOT NULL
);

-- What is set while a cluster runs, as JSON.
CREATE TABLE config (
    name VARCHAR(255) NOT NULL PRIMARY KEY,
    payload TEXT NOT NULL
);
