-- name: tables
-- Every table of the sandbox, and no other, is granted to the application's role.
SELECT c.oid, c.relname::text AS name, pg_total_relation_size(c.oid) AS bytes, EXISTS (
    SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'merchant_id' AND NOT a.attisdropped
) AS by_merchant
FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    AND EXISTS (SELECT 1 FROM aclexplode(c.relacl) AS granted WHERE granted.grantee = to_regrole($1))
ORDER BY name;

-- name: needs
-- A table needs the tables that its foreign keys refer to, and those whose rows are values of its columns.
SELECT conrelid AS source, confrelid AS target FROM pg_constraint WHERE contype = 'f'
UNION
SELECT a.attrelid, element.typrelid FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid JOIN pg_type element ON element.oid = coalesce(nullif(t.typelem, 0), t.oid)
WHERE a.attnum > 0 AND NOT a.attisdropped AND element.typrelid <> 0;

-- name: distributed
SELECT logicalrelid::oid AS oid, partmethod::text || repmodel::text AS method, colocationid,
    column_to_column_name(logicalrelid, partkey) AS by_column
FROM pg_dist_partition;

-- name: columns
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped;
