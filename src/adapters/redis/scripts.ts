/**
 * What Redis does in one piece. Every script has the same keys: the nodes, the users who are online, the orphans; the keys
 * of a node's own index begin with the first argument. A node's record is `epoch|deadline`, the deadline by the clock of the
 * Redis server in milliseconds; an entry whose epoch is not that of its node's record is dead, whatever else it says.
 */
import { createHash } from 'node:crypto'

export interface Script {
  readonly lua: string
  readonly sha: string
}

const HELPERS = `
local nodes, online, orphans = KEYS[1], KEYS[2], KEYS[3]
local index = ARGV[1]
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function record(id)
  local found = redis.call('HGET', nodes, id)
  if not found then return nil, 0 end
  local epoch, deadline = string.match(found, '^([^|]*)|(%d+)$')
  return epoch or '', tonumber(deadline or 0)
end
local function isLive(id, epoch)
  local found, deadline = record(id)
  return found == epoch and deadline > now()
end
local function extend(id, epoch, ms)
  redis.call('HSET', nodes, id, epoch .. '|' .. string.format('%.0f', now() + ms))
end
local function entries(uid)
  local found = redis.call('HGET', online, uid)
  if not found then return {} end
  local ok, list = pcall(cjson.decode, found)
  return ok and type(list) == 'table' and list or {}
end
local function keep(uid, list)
  if #list == 0 then redis.call('HDEL', online, uid) else redis.call('HSET', online, uid, cjson.encode(list)) end
end
local function without(list, isGone)
  local rest = {}
  for _, entry in ipairs(list) do
    if type(entry) == 'table' and not isGone(entry) then rest[#rest + 1] = entry end
  end
  return rest
end
`

function script(body: string): Script {
  const lua = HELPERS + body
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}

/** prefix, node, epoch, ms. A new life of the node: what was announced before it is dead from here on. */
export const ESTABLISH = script(`
local id, epoch = ARGV[2], ARGV[3]
local earlier = record(id)
if earlier and earlier ~= epoch then redis.call('SADD', orphans, id .. '|' .. earlier) end
extend(id, epoch, tonumber(ARGV[4]))
return 1
`)

/** prefix, node, epoch, ms. 0: Redis does not know this life of the node or its users, or has given it up. */
export const BEAT = script(`
local id, epoch = ARGV[2], ARGV[3]
if not isLive(id, epoch) then return 0 end
if redis.call('EXISTS', online) == 0 and redis.call('EXISTS', index .. id .. ':' .. epoch) == 1 then return 0 end
extend(id, epoch, tonumber(ARGV[4]))
return 1
`)

/** prefix, node, epoch, [[connectionID, uid, deviceFlag, deviceLevel, index member], …]. 0 as for BEAT: nothing was written. */
export const ADD = script(`
local id, epoch = ARGV[2], ARGV[3]
if not isLive(id, epoch) then return 0 end
local number = tonumber(id)
for _, added in ipairs(cjson.decode(ARGV[4])) do
  local connection, uid = added[1], added[2]
  local list = without(entries(uid), function(entry)
    return entry[1] == number and (entry[2] ~= epoch or entry[3] == connection)
  end)
  list[#list + 1] = { number, epoch, connection, added[3], added[4] }
  keep(uid, list)
  redis.call('SADD', index .. id .. ':' .. epoch, added[5])
end
return 1
`)

/** prefix, node, epoch, connectionID, uid, index member. */
export const REMOVE = script(`
local number, epoch, connection = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local list = entries(ARGV[5])
local rest = without(list, function(entry) return entry[1] == number and entry[3] == connection end)
if #rest ~= #list then keep(ARGV[5], rest) end
redis.call('SREM', index .. ARGV[2] .. ':' .. epoch, ARGV[6])
return 1
`)

/** prefix, node. In one step, however many entries it has: they are dead with the record, and removed later by \`SWEEP\`. */
export const LEAVE = script(`
local epoch = record(ARGV[2])
if epoch then
  redis.call('SADD', orphans, ARGV[2] .. '|' .. epoch)
  redis.call('HDEL', nodes, ARGV[2])
end
return 1
`)

/** prefix, most. Give up nodes that are silent, and remove some of the entries that are dead. 1: there is more. */
export const SWEEP = script(`
local time = now()
local records = redis.call('HGETALL', nodes)
for i = 1, #records, 2 do
  local epoch, deadline = string.match(records[i + 1], '^([^|]*)|(%d+)$')
  if not deadline or tonumber(deadline) <= time then
    redis.call('HDEL', nodes, records[i])
    if epoch then redis.call('SADD', orphans, records[i] .. '|' .. epoch) end
  end
end
local orphan = redis.call('SRANDMEMBER', orphans)
if not orphan then return 0 end
local id, epoch = string.match(orphan, '^(%d+)|(.*)$')
if id then
  local number, key = tonumber(id), index .. id .. ':' .. epoch
  for _, member in ipairs(redis.call('SPOP', key, tonumber(ARGV[2]))) do
    local ok, pair = pcall(cjson.decode, member)
    if ok and type(pair) == 'table' and type(pair[2]) == 'string' then
      keep(pair[2], without(entries(pair[2]), function(entry) return entry[1] == number and entry[2] == epoch end))
    end
  end
  if redis.call('EXISTS', key) == 1 then return 1 end
end
redis.call('SREM', orphans, orphan)
return redis.call('EXISTS', orphans)
`)

/** prefix, uid …: the time, the nodes' records, and of every uid its entries as text. */
export const LOCATE = script(`
local found = redis.call('HMGET', online, unpack(ARGV, 2))
return { string.format('%.0f', now()), redis.call('HGETALL', nodes), found }
`)

/** prefix, channel, bytes. Publishes to every node: how many have been reached, the time, and the nodes' records. */
export const ASK_ALL = script(`
local count = redis.call('PUBLISH', ARGV[2], ARGV[3])
return { count, string.format('%.0f', now()), redis.call('HGETALL', nodes) }
`)

export const SCRIPTS: readonly Script[] = [ESTABLISH, BEAT, ADD, REMOVE, LEAVE, SWEEP, LOCATE, ASK_ALL]
