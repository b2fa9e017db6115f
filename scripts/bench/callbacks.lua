-- Callbacks for wrk, no two alike: of ten in a group, nine are joins and one is the exit of somebody who joined.
-- Arguments: the app, the first number, how many groups, and how many ms each connection rests between two.
local path, groups, first = "/callback", 500, 0

function init(arguments)
  local app = arguments[1]
  first = tonumber(arguments[2])
  groups = tonumber(arguments[3])
  local pause = tonumber(arguments[4] or "0")
  if pause > 0 then
    delay = function() return pause end
  end
  number = first
  local query = "?SdkAppid=" .. app .. "&contenttype=json&OptPlatform=iOS&CallbackCommand=Group.CallbackAfter"
  join = path .. query .. "NewMemberJoin"
  exit = path .. query .. "MemberExit"
  headers = { ["Content-Type"] = "application/json" }
end

function request()
  number = number + 1
  local group, turn = number % groups, math.floor(number / groups)
  local at = 1680000000000 + number
  if turn % 10 == 9 then
    return wrk.format("POST", exit, headers, string.format(
      '{"CallbackCommand":"Group.CallbackAfterMemberExit","GroupId":"@TGS#bench%d","Type":"Public","ExitType":"Quit",' ..
      '"Operator_Account":"user%d","ExitMemberList":[{"Member_Account":"user%d"}],"EventTime":%d}',
      group, number, number - 5 * groups, at))
  end
  return wrk.format("POST", join, headers, string.format(
    '{"CallbackCommand":"Group.CallbackAfterNewMemberJoin","GroupId":"@TGS#bench%d","Type":"Public","JoinType":"Apply",' ..
    '"Operator_Account":"user%d","NewMemberList":[{"Member_Account":"user%d"}],"EventTime":%d}',
    group, number, number, at))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"max_ms":%f,"errors":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
