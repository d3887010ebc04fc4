ALTER TABLE terminal ADD PRIMARY KEY (id) INCLUDE (organization, serves);
ALTER TABLE offer ADD PRIMARY KEY (organization, service) INCLUDE (valid_from, valid_to);
ALTER TABLE candidate ADD PRIMARY KEY (organization, service, category)
    INCLUDE (place, valid_from, valid_to);
ALTER TABLE holder ADD PRIMARY KEY (id) INCLUDE (closed);
ALTER TABLE card ADD PRIMARY KEY (holder, place) INCLUDE (active, expires);
ALTER TABLE identifier ADD PRIMARY KEY (code, kind) INCLUDE (holder, card);
ALTER TABLE entitlement ADD PRIMARY KEY (holder, category) INCLUDE (valid_from, valid_to);
-- Sets the visibility map, without which an index alone cannot answer.
VACUUM (FREEZE, ANALYZE);
CHECKPOINT;
