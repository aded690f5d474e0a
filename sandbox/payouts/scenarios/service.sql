-- name: rules
SELECT w.default_scenario, w.review_threshold, ARRAY(
    SELECT json_build_array(id, name, match::text, steps::text) FROM scenario_rules WHERE merchant_id = $1 ORDER BY position
) AS rules
FROM worlds w WHERE w.merchant_id = $1;

-- name: order
UPDATE scenario_rules r SET position = n.position
FROM unnest($2::uuid[]) WITH ORDINALITY AS n (id, position)
WHERE r.merchant_id = $1 AND r.id = n.id AND r.position <> n.position;
