-- name: citus
SELECT extversion FROM pg_extension WHERE extname = 'citus';

-- name: is_available
SELECT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'citus');

-- name: group
SELECT groupid FROM pg_dist_local_group;

-- name: nodes
SELECT groupid, nodename, nodeport, isactive, shouldhaveshards FROM pg_dist_node WHERE noderole = 'primary'
ORDER BY groupid, nodeid;

-- name: shards
SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = $1::text::regclass;

-- name: sandbox_connections
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'psp-sandbox';

-- name: other_tables
SELECT c.relname::text FROM pg_class c
WHERE c.relkind IN ('r', 'p', 'f') AND c.relnamespace = 'public'::regnamespace AND c.oid <> ALL ($1::oid[])
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname;

-- name: dependents
-- Additions of others to the tables, which would break Citus or a later migration.
SELECT 'the view ' || v.oid::regclass FROM pg_depend d
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::oid[]) AND v.oid <> ALL ($1)
UNION
SELECT 'the trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger WHERE tgrelid = ANY ($1) AND NOT tgisinternal
UNION
SELECT 'the rule ' || rulename || ' on ' || ev_class::regclass FROM pg_rewrite WHERE ev_class = ANY ($1)
UNION
SELECT 'the foreign key ' || conname || ' of ' || conrelid::regclass FROM pg_constraint
WHERE contype = 'f' AND (conrelid = ANY ($1)) <> (confrelid = ANY ($1))
UNION
SELECT 'the child table ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = ANY ($1)
ORDER BY 1;
