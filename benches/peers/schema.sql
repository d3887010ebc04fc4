-- The registry of eligo on PostgreSQL. Every index that a check uses covers what the check reads.
CREATE TABLE terminal (
    id bigint NOT NULL, organization int NOT NULL, serves boolean NOT NULL);
-- What an organization offers and who can win it, worked out at import as eligo does.
CREATE TABLE offer (
    organization int NOT NULL, service int NOT NULL, valid_from date NOT NULL, valid_to date NOT NULL);
CREATE TABLE candidate (
    organization int NOT NULL, service int NOT NULL, category int NOT NULL, place int NOT NULL,
    valid_from date NOT NULL, valid_to date NOT NULL);
CREATE TABLE holder (id bigint NOT NULL, closed boolean NOT NULL);
CREATE TABLE card (
    holder bigint NOT NULL, place smallint NOT NULL, active boolean NOT NULL, issued date NOT NULL,
    expires date NOT NULL);
CREATE TABLE identifier (
    holder bigint NOT NULL, card smallint, kind "char" NOT NULL, code text COLLATE "C" NOT NULL);
CREATE TABLE entitlement (
    holder bigint NOT NULL, category int NOT NULL, valid_from date NOT NULL, valid_to date NOT NULL);
-- A confirm changes a row in its page: no column that it changes is indexed.
CREATE TABLE transaction (
    id bigint PRIMARY KEY, holder bigint NOT NULL, terminal bigint NOT NULL,
    organization int NOT NULL, service int NOT NULL, category int NOT NULL,
    checked_at timestamptz NOT NULL, confirmed_at timestamptz, price bigint, discounted_price bigint)
    WITH (fillfactor = 60);
CREATE SEQUENCE transaction_id CACHE 100;
