-- Every statement on limits: a name, a sentence, named parameters.

-- begin --
-- Have rows of these allowances, full ones where there were none.
INSERT INTO twinlens_rates (subject, kind, "fullAt")
SELECT subject, kind, 0 FROM unnest(%(subjects)s::text[], %(kinds)s::text[]) AS one (subject, kind)
ORDER BY subject, kind
ON CONFLICT DO NOTHING

-- take --
-- Take these counts of these allowances, if each has one left or none is needed (`admit` is false); otherwise nothing.
-- Nothing either where a row is missing, and then fewer come back: `begin` makes it. Rows are locked in their order, so
-- that no two servers wait for each other. `over`: the seconds until an allowance is full; `enough`: whether one was
-- left. The arithmetic is that of server/limits.py.
WITH wanted AS MATERIALIZED (
    SELECT one.*, extract(epoch FROM clock_timestamp())::double precision AS now
    FROM unnest(%(subjects)s::text[], %(kinds)s::text[], %(rates)s::double precision[],
        %(bursts)s::double precision[], %(counts)s::double precision[]) AS one (subject, kind, rate, burst, count)
), held AS MATERIALIZED (
    SELECT rates.subject, rates.kind, rates."fullAt"
    FROM twinlens_rates AS rates
    WHERE (rates.subject, rates.kind) IN (SELECT subject, kind FROM wanted)
    ORDER BY rates.subject, rates.kind
    FOR UPDATE
), state AS MATERIALIZED (
    SELECT wanted.*, greatest("fullAt" - now, 0) AS over, burst - greatest("fullAt" - now, 0) * rate >= 0.999999 AS enough
    FROM wanted JOIN held USING (subject, kind)
), verdict AS MATERIALIZED (
    SELECT count(*) = cardinality(%(subjects)s::text[]) AND (bool_and(enough) OR NOT %(admit)s::boolean) AS admitted
    FROM state
), taken AS (
    UPDATE twinlens_rates AS rates
    SET "fullAt" = now + over + count / rate
    FROM state, verdict
    WHERE admitted AND count > 0 AND (rates.subject, rates.kind) = (state.subject, state.kind)
    RETURNING rates.subject, rates.kind, over + count / rate AS over
)
SELECT subject, kind, coalesce(taken.over, state.over) AS over, enough
FROM state LEFT JOIN taken USING (subject, kind)

-- forget_full --
-- Drop what has been full for a minute.
DELETE FROM twinlens_rates WHERE "fullAt" < extract(epoch FROM clock_timestamp()) - 60

-- set_client_limits --
-- Keep what a client may ask for, in place of what it might before.
INSERT INTO twinlens_limits ("clientId", limits) VALUES (%(client_id)s, %(limits)s)
ON CONFLICT ("clientId") DO UPDATE SET limits = excluded.limits

-- clear_client_limits --
-- Let a client ask for what others may.
DELETE FROM twinlens_limits WHERE "clientId" = %(client_id)s RETURNING "clientId"

-- limits_of_clients --
-- The clients that have limits of their own.
SELECT "clientId" AS client_id, limits FROM twinlens_limits ORDER BY "clientId"
