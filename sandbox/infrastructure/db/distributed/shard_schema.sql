-- name: tables
SELECT anchor.shardid AS shard, c.relname AS name, c.relname || '_' || s.shardid AS shard_table
FROM pg_dist_shard anchor
JOIN pg_dist_partition a ON a.logicalrelid = anchor.logicalrelid
JOIN pg_dist_partition t ON t.colocationid = a.colocationid AND t.partmethod = 'h'
JOIN pg_dist_shard s ON s.logicalrelid = t.logicalrelid AND s.shardminvalue = anchor.shardminvalue
JOIN pg_class c ON c.oid = t.logicalrelid
WHERE anchor.shardid = ANY ($1::bigint[]) ORDER BY c.relname;

-- name: found
-- When Citus drops the tables of a shard that has moved away, it drops their views too, so they are counted.
SELECT n.nspname, obj_description(n.oid, 'pg_namespace') AS digest,
    (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = 'v') AS views
FROM pg_namespace n WHERE n.nspname = ANY ($1::text[]);

-- name: schemas
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'psp\_shard\_%';
