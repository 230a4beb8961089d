-- Whether the program has taken note that a row is used. Where it differs from `used`, somebody changed `used`, or
-- inserted the row, by hand.
ALTER TABLE segments ADD COLUMN noted BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE segments SET noted = used WHERE uid IS NOT NULL;
CREATE INDEX segments_by_hand ON segments (id) WHERE used <> noted;

-- Whether the files are being removed: then their publication fails.
ALTER TABLE pushes ADD COLUMN doomed BOOLEAN NOT NULL DEFAULT FALSE;

-- Who may decide, until when, by this database's clock. `epoch` counts the holders, so that a late one is told apart.
CREATE TABLE leases (
    role VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    holder VARCHAR(255) COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);

-- The rules of a data source, or those for all others under `_default`, as Druid's JSON.
CREATE TABLE rules (
    dataSource VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    version VARCHAR(255) COLLATE "C" NOT NULL,
    payload TEXT NOT NULL
);

-- Who changed what.
CREATE TABLE audit (
    id BIGSERIAL PRIMARY KEY,
    audit_key VARCHAR(255) COLLATE "C" NOT NULL,
    type VARCHAR(255) COLLATE "C" NOT NULL,
    author VARCHAR(255) COLLATE "C" NOT NULL,
    comment VARCHAR(2048) COLLATE "C" NOT NULL,
    created_date VARCHAR(255) COLLATE "C" NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX audit_by_key ON audit (audit_key, id);
