-- Reads one user's summary repeatedly. sandbox/bench/wrk.py parses the line printed at the end.
wrk.headers["X-API-KEY"] = os.getenv("PSP_BENCH_API_KEYS")

function done(summary, latency, requests)
    local broken = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
    io.write(string.format(
        '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"refused":%d,"broken":%d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
        summary.errors.status, broken))
end
