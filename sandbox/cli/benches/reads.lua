-- Reads the given paths in turn, with one key.

dofile(os.getenv("PSP_BENCH_COMMON"))

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
