-- One payout in one round trip. create_function.sql creates the function.
SELECT psp_bench_create(:merchant::uuid, :run::text, :event_body::text, :response_body::text, :request_id::text);
