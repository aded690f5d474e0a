-- Creates payouts for some aggregators in rotation: `psp bench dialect --name safepay`. PSP_BENCH_PATHS has their ids, in the order of
-- the keys. As in the native script, a request is one concatenation, because wrk shares the cores with the sandbox.

dofile(os.getenv("PSP_BENCH_COMMON"))

function init(args)
   local open = '{"request_id":"'
   rest = '","amount":"1.00","creditor_iban":"PK93HABB0000000000000001"}'
   heads = {}
   local accounts = os.getenv("PSP_BENCH_PATHS"):gmatch("%S+")
   for key in os.getenv("PSP_BENCH_API_KEYS"):gmatch("[^,]+") do
      heads[#heads + 1] = "POST /raastwire/v1/aggregators/" .. accounts() .. "/payout HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
         .. "\r\nContent-Type: application/json\r\nX-SFPY-AGGREGATOR-SECRET-KEY: " .. key
         .. "\r\nContent-Length: " .. (#open + 36 + #rest) .. "\r\n\r\n" .. open
   end
   merchants = #heads
   prefix = os.getenv("PSP_BENCH_RUN") .. string.format("-%04d-4000-8000-", number)
   count = 0
end

function request()
   count = count + 1
   return heads[count % merchants + 1] .. prefix .. string.format("%012d", count) .. rest
end
