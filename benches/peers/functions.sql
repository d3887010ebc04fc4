-- The work, one call each: a refusal ends it early, and every statement keeps its plan.
CREATE FUNCTION check_benefit(
    asker int, asked_at bigint, wanted int, card_code text, today date,
    OUT result int, OUT opened bigint, OUT owner bigint, OUT best int)
LANGUAGE plpgsql AS $$
DECLARE
    usable boolean;
BEGIN
    opened := 0;
    owner := 0;
    best := 0;
    PERFORM FROM terminal t WHERE t.id = asked_at AND t.organization = asker AND t.serves;
    IF NOT FOUND THEN
        result := 7;
        RETURN;
    END IF;
    PERFORM FROM offer o WHERE o.organization = asker AND o.service = wanted
        AND today BETWEEN o.valid_from AND o.valid_to;
    IF NOT FOUND THEN
        result := 8;
        RETURN;
    END IF;
    SELECT i.holder, NOT h.closed AND c.active AND today <= c.expires INTO owner, usable
    FROM identifier i
    JOIN holder h ON h.id = i.holder
    JOIN card c ON c.holder = i.holder AND c.place = i.card
    WHERE i.code = card_code AND i.kind = 'c';
    IF NOT FOUND THEN
        result := 2;
        RETURN;
    END IF;
    IF NOT usable THEN
        result := 5;
        RETURN;
    END IF;
    SELECT e.category INTO best
    FROM entitlement e
    JOIN candidate c ON c.organization = asker AND c.service = wanted AND c.category = e.category
    WHERE e.holder = owner AND today BETWEEN e.valid_from AND e.valid_to
        AND today BETWEEN c.valid_from AND c.valid_to
    ORDER BY c.place LIMIT 1;
    IF NOT FOUND THEN
        result := 1;
        RETURN;
    END IF;
    opened := nextval('transaction_id');
    INSERT INTO transaction (id, holder, terminal, organization, service, category, checked_at)
    VALUES (opened, owner, asked_at, asker, wanted, best, now());
    result := 0;
END $$;

CREATE FUNCTION confirm_transaction(
    asked bigint, asker int, owner bigint, granted int, paid bigint, paid_discounted bigint)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    known transaction;
BEGIN
    UPDATE transaction
    SET confirmed_at = now(), price = paid, discounted_price = paid_discounted
    WHERE id = asked AND organization = asker AND holder = owner AND category = granted
        AND confirmed_at IS NULL AND checked_at > now() - interval '1 day';
    IF FOUND THEN
        RETURN 0;
    END IF;
    -- A repeat, a mismatch or another state.
    SELECT * INTO known FROM transaction WHERE id = asked AND organization = asker;
    IF NOT FOUND OR known.confirmed_at IS NULL AND known.checked_at <= now() - interval '1 day' THEN
        RETURN 1;
    END IF;
    IF known.holder <> owner OR known.category <> granted THEN
        RETURN 2;
    END IF;
    IF known.price = paid AND known.discounted_price = paid_discounted THEN
        RETURN 0;
    END IF;
    RETURN 3;
END $$;
