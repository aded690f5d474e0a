-- name: by_external_id
-- The user with this external id, if the id is in the window.
SELECT {columns} FROM (SELECT * FROM users
    WHERE users.merchant_id = $1 AND users.external_id >= $5 AND users.external_id <= $5
    ORDER BY users.merchant_id, users.external_id OFFSET 0) u
WHERE id < $2 AND id >= $3 LIMIT $4;

-- name: list
SELECT {columns} FROM users WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, users.id DESC LIMIT $4;

-- name: end
-- The first user that a page does not read any more.
SELECT id::text FROM users WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, users.id DESC OFFSET $4 LIMIT 1;

-- name: search
-- `strpos` and not LIKE, so that nothing in the text is a wildcard. `lower` of the text is computed once. Users that the text
-- identifies are left out: they were listed before.
SELECT {columns} FROM (
    SELECT * FROM users WHERE merchant_id = $1 AND id < $2::uuid AND id >= $3::uuid
    ORDER BY merchant_id DESC, users.id DESC OFFSET 0
) u
WHERE (strpos(lower(name), (SELECT lower($5::text))) > 0 OR strpos(lower(external_id), (SELECT lower($5))) > 0
        OR strpos(u.id::text, (SELECT lower($5))) > 0)
    AND external_id IS DISTINCT FROM $5 AND NOT (u.id >= $6::uuid AND u.id < $7::uuid)
ORDER BY u.id DESC LIMIT $4;
