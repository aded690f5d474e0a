-- name: name_merchant
INSERT INTO key_merchants (key_hash, merchant) VALUES ($1, $2)
ON CONFLICT (key_hash) DO UPDATE SET merchant = EXCLUDED.merchant;
