-- name: by_reference
-- The payout with this reference, if it matches the other filters.
SELECT {columns} FROM (SELECT * FROM payouts
    WHERE payouts.merchant_id = $1 AND payouts.merchant_reference >= $2 AND payouts.merchant_reference <= $2
    ORDER BY payouts.merchant_id, payouts.merchant_reference OFFSET 0) p
WHERE status = ANY ($3::text[]) AND dest_type = ANY ($4::text[]) AND id < $5 AND id >= $6
    AND ($7::uuid IS NULL OR user_id = $7) AND metadata @> $8::jsonb AND ($9::text IS NULL OR failure_code = $9)
    AND ($10::text IS NULL OR bank_code = $10) AND ($11::text IS NULL OR wallet_code = $11);

-- name: user
SELECT id::text FROM users WHERE users.merchant_id = $1 AND users.external_id >= $2 AND users.external_id <= $2
    ORDER BY users.merchant_id, users.external_id;

-- part: of_merchant
-- The ranges of payouts that a search reads: all of the merchant, or those of the user $4.
payouts WHERE merchant_id = $1 AND id < $2::uuid AND id >= $3::uuid ORDER BY merchant_id DESC, payouts.id DESC

-- part: of_user
payouts WHERE merchant_id = $1 AND user_id IS NOT NULL
    AND (user_id, id) < ($4::uuid, $2::uuid) AND (user_id, id) >= ($4, $3::uuid)
ORDER BY merchant_id DESC, payouts.user_id DESC, payouts.id DESC

-- part: matching
-- `strpos` and not LIKE, so that nothing in the text is a wildcard. `lower` of the text is computed once. Without a text ($9),
-- every payout of the range matches. With one, the payouts that it identifies ($11 to $14) do not: they were listed before.
WHERE p.status = ANY ($5::text[]) AND p.dest_type = ANY ($6::text[]) AND p.metadata @> $7::jsonb
    AND ($8::text IS NULL OR p.merchant_reference = $8) AND ($4::uuid IS NULL OR p.user_id = $4)
    AND ($16::text IS NULL OR p.failure_code = $16) AND ($17::text IS NULL OR p.bank_code = $17)
    AND ($18::text IS NULL OR p.wallet_code = $18)
    AND ($9::text IS NULL OR (
        (strpos(lower(p.merchant_reference), (SELECT lower($9))) > 0 OR strpos(p.account_number, $10::text) > 0
            OR strpos(lower(p.account_title), (SELECT lower($9))) > 0 OR strpos(p.id::text, (SELECT lower($9))) > 0
            OR p.amount::text = $9)
        AND p.merchant_reference <> $11::text AND (p.user_id IS NULL OR p.user_id <> ALL ($12::uuid[]))
        AND NOT (p.id >= $13::uuid AND p.id < $14::uuid)
    ))

-- name: search_of_merchant
SELECT {columns} FROM (SELECT * FROM {of_merchant} OFFSET 0) p {matching} ORDER BY p.id DESC LIMIT $15;

-- name: search_of_user
SELECT {columns} FROM (SELECT * FROM {of_user} OFFSET 0) p {matching} ORDER BY p.user_id DESC, p.id DESC LIMIT $15;

-- name: end_of_merchant
-- The first payout of the range that a page no longer reads.
SELECT id::text FROM {of_merchant} OFFSET $4 LIMIT 1;

-- name: end_of_user
SELECT id::text FROM {of_user} OFFSET $5 LIMIT 1;
