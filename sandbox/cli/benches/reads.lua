-- Reads the given paths in turn, with one key. sandbox/cli/benches/wrk.py parses the line printed at the end.
local requests, count = {}, 0

function init(args)
   for path in os.getenv("PSP_BENCH_PATHS"):gmatch("[^ ]+") do
      requests[#requests + 1] = "GET " .. path .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
         .. "\r\nX-API-KEY: " .. os.getenv("PSP_BENCH_API_KEYS") .. "\r\n\r\n"
   end
end

function request()
   count = count + 1
   return requests[count % #requests + 1]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"refused":%d,"broken":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
