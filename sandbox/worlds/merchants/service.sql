-- name: open_world
INSERT INTO worlds (merchant_id, seed, clock_frozen_at) VALUES ($1, $2, $3);

-- name: name_merchant
INSERT INTO key_merchants (key_hash, merchant) VALUES ($1, $2)
ON CONFLICT (key_hash) DO UPDATE SET merchant = EXCLUDED.merchant;
