-- Who may log in. A verifier proves a password and does not tell it: `SCRAM-SHA-256$iterations:salt$stored key:server key`.
CREATE TABLE IF NOT EXISTS users (
    name VARCHAR(255) NOT NULL PRIMARY KEY,
    verifier VARCHAR(255) NOT NULL,
    created_date VARCHAR(255) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
