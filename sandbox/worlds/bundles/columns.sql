-- name: columns
-- Of the tables themselves: where a name means a view, that has no keys, defaults or NOT NULL.
SELECT c.relname::text AS table, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
    NOT a.attnotnull OR a.atthasdef AS is_optional, array_position(i.indkey::int[], a.attnum::int) AS key
FROM unnest($1::text[]) AS n (name) JOIN pg_class c ON c.oid = ('public.' || n.name)::regclass
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE a.attname <> 'merchant_id' ORDER BY c.relname, a.attnum;
