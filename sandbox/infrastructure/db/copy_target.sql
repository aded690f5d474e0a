-- name: find
-- A view's rule depends on each of the table's columns.
SELECT t.relname::text AS name, n.nspname::text AS schema
FROM pg_class named LEFT JOIN (
    pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass
) ON named.relkind = 'v' AND r.ev_class = named.oid AND d.refobjid <> named.oid
JOIN pg_class t ON t.oid = coalesce(d.refobjid, named.oid) JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE named.oid = $1::text::regclass LIMIT 1;
