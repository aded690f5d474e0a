-- name: has_citus
SELECT to_regclass('pg_catalog.pg_dist_shard') IS NOT NULL;

-- name: shards
SELECT s.shardid, s.shardminvalue::int AS lowest_hash, n.nodename, n.nodeport
FROM pg_dist_shard s
JOIN pg_dist_partition t ON t.logicalrelid = s.logicalrelid AND t.partmethod = 'h'
JOIN pg_dist_placement p ON p.shardid = s.shardid
JOIN pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary'
WHERE s.logicalrelid = to_regclass('public.merchants')
ORDER BY lowest_hash;

-- name: nodes
SELECT nodename, nodeport FROM pg_dist_node WHERE noderole = 'primary' AND isactive ORDER BY groupid, nodeid;
