-- Who may decide, until when, by this database's clock. `epoch` counts the holders, so that a late one is told apart.
CREATE TABLE IF NOT EXISTS leases (
    role VARCHAR(255) NOT NULL PRIMARY KEY,
    holder VARCHAR(255) NOT NULL,
    epoch BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The rules of a data source, or those for all others under `_default`, as Druid's JSON.
CREATE TABLE IF NOT EXISTS rules (
    dataSource VARCHAR(255) NOT NULL PRIMARY KEY,
    version VARCHAR(255) NOT NULL,
    payload LONGTEXT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Who changed what.
CREATE TABLE IF NOT EXISTS audit (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    audit_key VARCHAR(255) NOT NULL,
    type VARCHAR(255) NOT NULL,
    author VARCHAR(255) NOT NULL,
    comment VARCHAR(2048) NOT NULL,
    created_date VARCHAR(255) NOT NULL,
    payload LONGTEXT NOT NULL,
    INDEX audit_by_key (audit_key, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Whether the files are being removed: then their publication fails.
-- One statement each, so that a run that was cut short is told apart: a column that is there already is no failure.
ALTER TABLE pushes ADD COLUMN doomed BOOLEAN NOT NULL DEFAULT FALSE;

-- Whether the program has taken note that a row is used. Where it differs from `used`, somebody changed `used`, or
-- inserted the row, by hand.
ALTER TABLE segments ADD COLUMN noted BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE segments SET noted = used WHERE uid IS NOT NULL;
ALTER TABLE segments ADD COLUMN by_hand TINYINT AS (IF(used <> noted, 1, NULL)) VIRTUAL;
CREATE INDEX segments_by_hand ON segments (by_hand, id);
