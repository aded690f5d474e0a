-- Creates payouts for one merchant, or for several in rotation. Every reference and idempotency key is new.
--
-- wrk gives each thread its own Lua state. The run's name, the thread's number and the request's number form a reference
-- of exactly 20 characters, so that the Content-Length is constant and a request is one concatenation: wrk shares the
-- cores with the sandbox it measures. There is no `response` function, because it would cost a table of headers per
-- response. wrk counts statuses above 399 itself, and the caller counts the stored payouts.

dofile(os.getenv("PSP_BENCH_COMMON"))

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
