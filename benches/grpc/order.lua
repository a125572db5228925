-- wrk -s order.lua http://HOST:PORT/v1/echo (run from the folder of order.json, or set ORDER)
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = assert(io.open(os.getenv("ORDER") or "order.json"))
wrk.body = file:read("*a")
file:close()
