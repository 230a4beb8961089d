-- Who may log in. A verifier proves a password and does not tell it: `SCRAM-SHA-256$iterations:salt$stored key:server key`.
CREATE TABLE users (
    name VARCHAR(255) COLLATE "C" NOT NULL PRIMARY KEY,
    verifier VARCHAR(255) NOT NULL,
    created_date VARCHAR(255) NOT NULL
);
