-- Creates payouts of one merchant, or of several in turn; every reference and every idempotency key is new.
--
-- wrk gives each thread a Lua state of its own. The run's name, the thread's number and the request's number make a
-- reference of always 20 characters, so that the Content-Length is always the same and a request is one concatenation:
-- wrk shares its cores with what it measures. There is no `response` function, which would cost a table of headers for
-- every answer: wrk itself counts those above 399, and the caller counts the payouts that were stored.

local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

function init(args)
   local open = '{"merchant_reference":"'
   rest = '","amount":"1.00","dest_type":"BANK","bank_code":"HBL","account_number":"12345678900001",'
      .. '"account_title":"AYESHA KHAN"}'
   heads = {}
   for key in os.getenv("PSP_BENCH_API_KEYS"):gmatch("[^,]+") do
      heads[#heads + 1] = "POST /api/v1/payouts HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
         .. "\r\nContent-Type: application/json\r\nX-API-KEY: " .. key
         .. "\r\nContent-Length: " .. (#open + 20 + #rest) .. "\r\nX-IDEMPOTENCY-KEY: bench-payout-key"
   end
   merchants = #heads
   middle = "\r\n\r\n" .. open
   prefix = os.getenv("PSP_BENCH_RUN") .. string.format("-%02d-", number)
   count = 0
end

function request()
   count = count + 1
   local reference = prefix .. string.format("%08d", count)
   return heads[count % merchants + 1] .. reference .. middle .. reference .. rest
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"refused":%d,"broken":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
