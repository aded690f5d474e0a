-- One payout in one round trip; the function is made by create_function.sql.
SELECT psp_bench_create(:merchant::uuid, :run::text, :event_body::text, :answer_body::text, :request_id::text);
