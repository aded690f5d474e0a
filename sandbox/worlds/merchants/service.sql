-- name: open_world
INSERT INTO worlds (merchant_id, seed, clock_frozen_at) VALUES ($1, $2, $3);
