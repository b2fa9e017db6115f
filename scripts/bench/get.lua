-- A question for wrk, asked again and again; a second argument is the ETag to send along. NUMBER in the address is a
-- number that counts up, so that no two questions are the same.
function init(arguments)
  wrk.path = arguments[1]
  if arguments[2] then wrk.headers["If-None-Match"] = arguments[2] end
  if string.find(wrk.path, "NUMBER", 1, true) then
    local address, number = wrk.path, 0
    request = function()
      number = number + 1
      return wrk.format("GET", (string.gsub(address, "NUMBER", number)))
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"errors":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
