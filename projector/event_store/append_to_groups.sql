-- Appends events whose identity is new, each as the next version of its stream, and returns a row for every event given,
-- in order: its position, and whether it was stored before. Returns no rows, and appends nothing, if more accounts are
-- forgotten than those up to `forgotten_through`, a row of the table `forgotten`.
--
-- Receivers of several versions share a database while it is upgraded, so a released function never changes.
-- A version that needs another one adds append_to_groups_2, and leaves this one to older receivers.
CREATE FUNCTION append_to_groups(
    ids text[], topics text[], states bytea[], identities_ bytea[], forgotten_through bigint)
RETURNS TABLE (at_position bigint, is_repeated boolean) LANGUAGE plpgsql AS $$
DECLARE
    head bigint;
BEGIN
    -- Under this lock, positions are assigned in the order in which transactions commit: no reader misses an event.
    LOCK TABLE stored_events IN EXCLUSIVE MODE;
    IF (SELECT COALESCE(MAX(id), 0) FROM forgotten) <> forgotten_through THEN
        RETURN;
    END IF;
    SELECT COALESCE(MAX(notification_id), 0) INTO head FROM stored_events;
    -- The plan is made while the tables are empty, and kept. Scalar subqueries make it look up rows one by one;
    -- joins would read the tables whole.
    RETURN QUERY WITH candidates AS MATERIALIZED (
        SELECT given.*, (SELECT position FROM identities WHERE identities.identity = given.identity) AS known,
            CASE WHEN given.identity IS NULL THEN 1
                ELSE ROW_NUMBER() OVER (PARTITION BY given.identity ORDER BY given.nth) END AS time
        FROM unnest(ids, topics, states, identities_) WITH ORDINALITY AS given (id, topic, state, identity, nth)),
    newest AS MATERIALIZED (
        SELECT streams.id, (SELECT MAX(originator_version) FROM stored_events WHERE originator_id = streams.id)
            AS version
        FROM (SELECT DISTINCT candidates.id FROM candidates) AS streams),
    added AS MATERIALIZED (
        SELECT candidates.*, head + ROW_NUMBER() OVER (ORDER BY candidates.nth) AS position,
            COALESCE(newest.version, 0) + ROW_NUMBER() OVER (PARTITION BY candidates.id ORDER BY candidates.nth)
                AS version
        FROM candidates JOIN newest ON newest.id = candidates.id
        WHERE candidates.known IS NULL AND candidates.time = 1),
    appended AS (
        INSERT INTO stored_events (originator_id, originator_version, topic, state, notification_id)
        SELECT added.id, added.version, added.topic, added.state, added.position FROM added ORDER BY added.nth),
    identified AS (
        INSERT INTO identities
        SELECT added.identity, added.position FROM added WHERE added.identity IS NOT NULL)
    SELECT COALESCE(candidates.known, own.position, first.position), own.position IS NULL
        FROM candidates
        LEFT JOIN added AS own ON own.nth = candidates.nth
        LEFT JOIN added AS first ON first.identity = candidates.identity
        ORDER BY candidates.nth;
    -- Positions that a failed transaction has taken from the sequence are given again, so there are no gaps.
    PERFORM setval(pg_get_serial_sequence('stored_events', 'notification_id'), MAX(notification_id))
        FROM stored_events HAVING MAX(notification_id) > 0;
    NOTIFY stored_events;
END $$
