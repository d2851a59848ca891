import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { IMError, Presence, PresenceEntry } from 'imengine'
import { redisCluster, type RedisCluster, type RedisClusterOptions } from 'imengine/redis'
import { hasRedisServer, RedisServer, until } from './redis-server.ts'

const entry = (uid: string, nodeID: number, connectionID: string): PresenceEntry => ({ uid, nodeID, connectionID, deviceFlag: 0, deviceLevel: 0 })

async function located(presence: Presence, ...uids: string[]): Promise<Record<string, readonly number[]>> {
  return Object.fromEntries(await presence.locate(uids))
}

describe.skipIf(!hasRedisServer())('presence in Redis', () => {
  let server: RedisServer
  let look: Redis
  const clusters: RedisCluster[] = []
  const errors: IMError[] = []

  beforeAll(async () => {
    server = await RedisServer.start()
    look = server.client()
  })
  afterAll(async () => {
    look.disconnect()
    await server.stop()
  })
  beforeEach(async () => {
    errors.length = 0
    await look.flushall()
  })
  afterEach(async () => {
    await Promise.all(clusters.splice(0).map((cluster) => cluster.close()))
  })

  function open(options: Partial<RedisClusterOptions> = {}): Presence {
    const cluster = redisCluster({ url: server.url, onError: (error) => errors.push(error), ...options })
    clusters.push(cluster)
    return cluster.presence
  }

  async function callCount(command: string): Promise<number> {
    return Number(new RegExp(`^cmdstat_${command}:calls=(\\d+)`, 'm').exec(await look.info('commandstats'))?.[1] ?? 0)
  }

  it('leaves nothing but the node’s record when everybody has gone offline, and nothing at all when the node has left', async () => {
    const presence = open()
    for (const one of [entry('ann', 1, 'a'), entry('ann', 1, 'b'), entry('bob', 1, 'c')]) await presence.online(one)
    for (const one of [entry('ann', 1, 'a'), entry('ann', 1, 'b'), entry('bob', 1, 'c')]) await presence.offline(one)
    expect(await look.keys('*')).toEqual(['imengine:nodes'])
    await presence.leave(1)
    await presence.heartbeat(2, 60_000) // the living remove what is left
    await until(async () => (await look.exists('imengine:orphans')) === 0, 'the orphans are gone')
    expect(await look.keys('*')).toEqual(['imengine:nodes'])
    expect(await look.hkeys('imengine:nodes')).toEqual(['2'])
  })

  it('locates 1000 uids with one call, and more with one for each 1000', async () => {
    const presence = open()
    const uids = Array.from({ length: 2_500 }, (_, index) => `u${index}`)
    await presence.online(entry('u7', 3, 'a'))
    const before = await callCount('evalsha')
    expect(await located(presence, ...uids.slice(0, 1_000))).toEqual({ u7: [3] })
    expect(await callCount('evalsha')).toBe(before + 1)
    expect(await located(presence, ...uids)).toEqual({ u7: [3] })
    expect(await callCount('evalsha')).toBe(before + 4)
  })

  it('logins that come together are written together', async () => {
    const presence = open()
    const before = await callCount('evalsha')
    const uids = Array.from({ length: 3_000 }, (_, index) => `u${index}`)
    await Promise.all(uids.map(async (uid, index) => presence.online(entry(uid, 1, `c${index}`))))
    expect((await callCount('evalsha')) - before).toBeLessThan(30)
    expect((await presence.locate(uids)).size).toBe(3_000)
  })

  it('a login that waits for the one before is written when its turn comes, however often they follow each other', async () => {
    const presence = open()
    for (let count = 0; count < 300; count++) {
      await Promise.all([presence.online(entry(`u${count}`, 1, `a${count}`)), presence.online(entry(`v${count}`, 1, `b${count}`))])
      if (count % 3 === 0) await Promise.all([presence.offline(entry(`u${count}`, 1, `a${count}`)), presence.online(entry(`w${count}`, 1, `c${count}`))])
    }
    expect(await look.hlen('imengine:user:online')).toBe(600)
  })

  it('a node that stays silent is cleaned up by another one in bounded steps, without a walk over the keyspace', async () => {
    await look.config('RESETSTAT')
    const [dead, living] = [open(), open()]
    await dead.heartbeat(1, 60)
    await Promise.all(Array.from({ length: 700 }, async (_, index) => dead.online(entry(`u${index % 350}`, 1, `c${index}`))))
    await living.online(entry('u1', 2, 'z'))
    expect(await look.hlen('imengine:user:online')).toBe(350)
    await until(async () => {
      await living.heartbeat(2, 1_000)
      return (await look.hlen('imengine:user:online')) === 1
    }, 'the entries of the dead node have been removed')
    await until(async () => (await look.exists('imengine:orphans')) === 0, 'the orphans are gone')
    expect((await look.keys('*')).filter((key) => key.startsWith('imengine:node:1:'))).toEqual([])
    expect(await located(living, 'u1', 'u2')).toEqual({ u1: [2] })
    expect(await callCount('scan')).toBe(0)
    const longest = (await look.call('SLOWLOG', 'GET', '-1')) as [number, number, number, string[]][]
    expect(longest.filter(([, , microseconds]) => microseconds > 100_000)).toEqual([])
  })

  it('leave is one step, whatever the node has announced', async () => {
    const presence = open()
    await Promise.all(Array.from({ length: 500 }, async (_, index) => presence.online(entry(`u${index}`, 1, `c${index}`))))
    const before = await callCount('spop')
    await presence.leave(1)
    expect((await presence.locate(['u1', 'u499'])).size).toBe(0)
    expect(await callCount('spop')).toBe(before)
  })

  it('what Redis has lost is there again with the next heartbeat, without anybody who has left meanwhile', async () => {
    const presence = open()
    await presence.heartbeat(1, 1_000)
    const all = Array.from({ length: 650 }, (_, index) => entry(`u${index}`, 1, `c${index}`))
    await Promise.all(all.map(async (one) => presence.online(one)))
    await look.flushall()
    await presence.offline(all[0]!)
    expect(await located(presence, 'u0', 'u1')).toEqual({})
    await presence.heartbeat(1, 1_000)
    const found = await presence.locate(all.map(({ uid }) => uid))
    expect(found.size).toBe(649)
    expect(found.has('u0')).toBe(false)
  })

  it('so is a hash of users that somebody has deleted by itself', async () => {
    const presence = open()
    await presence.heartbeat(1, 60_000)
    await presence.online(entry('ann', 1, 'a'))
    await look.del('imengine:user:online')
    await presence.heartbeat(1, 60_000)
    expect(await located(presence, 'ann')).toEqual({ ann: [1] })
  })

  it('a login on a node that Redis has forgotten brings the others back at once', async () => {
    const presence = open()
    await presence.heartbeat(1, 60_000)
    await presence.online(entry('ann', 1, 'a'))
    await look.flushall()
    await presence.online(entry('bob', 1, 'b'))
    expect(await located(presence, 'ann', 'bob')).toEqual({ ann: [1], bob: [1] })
  })

  it('comings and goings while everything is written again end in what was called last', async () => {
    const presence = open()
    await presence.heartbeat(1, 1_000)
    const all = Array.from({ length: 900 }, (_, index) => entry(`u${index}`, 1, `c${index}`))
    await Promise.all(all.map(async (one) => presence.online(one)))
    await look.flushall()
    const calls: Promise<void>[] = [presence.heartbeat(1, 1_000) as Promise<void>]
    for (const [index, one] of all.entries()) {
      if (index % 3 === 0) calls.push(presence.offline(one) as Promise<void>)
      if (index % 6 === 0) calls.push(presence.online(one) as Promise<void>)
      if (index % 50 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await Promise.all(calls)
    const expected = all.filter((_, index) => index % 3 !== 0 || index % 6 === 0).map(({ uid }) => uid)
    expect([...(await presence.locate(all.map(({ uid }) => uid))).keys()].sort()).toEqual(expected.sort())
  })

  it('a node whose heartbeats could not reach Redis is whole again with the first that does', async () => {
    const [one, two] = [open({ commandTimeoutMs: 50 }), open()]
    await one.heartbeat(1, 40)
    await one.online(entry('ann', 1, 'a'))
    await two.heartbeat(2, 1_000)
    server.freeze()
    try {
      for (let count = 0; count < 4; count++) {
        await expect(one.heartbeat(1, 40)).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
      }
    } finally {
      server.wake()
    }
    await until(async () => (await located(two, 'ann'))['ann'] === undefined, 'the node counts as gone')
    await until(() => Promise.resolve(one.heartbeat(1, 1_000)).then(() => true, () => false), 'a heartbeat arrives')
    expect(await located(two, 'ann')).toEqual({ ann: [1] })
  })

  it('a node that never sends a heartbeat is shown for firstHeartbeatMs, and no longer', async () => {
    const presence = open({ firstHeartbeatMs: 300 })
    await presence.online(entry('ann', 1, 'a'))
    expect(await located(presence, 'ann')).toEqual({ ann: [1] })
    await until(async () => (await presence.locate(['ann'])).size === 0, 'it is gone')
  })

  it('who is alive is decided by the clock of Redis: that of a node may be wrong by hours', async () => {
    const presence = open()
    await presence.heartbeat(1, 1_000)
    await presence.online(entry('ann', 1, 'a'))
    const now = vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 7_200_000)
    expect(await located(presence, 'ann')).toEqual({ ann: [1] })
    now.mockRestore()
  })

  it('a second life of a node shows nobody of its first, and takes nothing from other nodes', async () => {
    const [first, second] = [open(), open()]
    await first.heartbeat(1, 60_000)
    await first.online(entry('ann', 1, 'a'))
    await first.online(entry('ann', 2, 'b'))
    await second.leave(1)
    await second.online(entry('bob', 1, 'a'))
    expect(await located(second, 'ann', 'bob')).toEqual({ ann: [2], bob: [1] })
  })

  it('a connection id that comes back for another user belongs to that user alone', async () => {
    const presence = open()
    await presence.online(entry('ann', 1, 'a'))
    await presence.online(entry('bob', 1, 'a'))
    expect(await located(presence, 'ann', 'bob')).toEqual({ bob: [1] })
  })

  it('what somebody else has written into the hash is reported and left out, and the next login of that user mends it', async () => {
    const presence = open()
    await presence.online(entry('ann', 1, 'a'))
    for (const text of ['', 'x', '{"a":1}', '5', 'null']) {
      await look.hset('imengine:user:online', 'bob', text)
      expect(await located(presence, 'ann', 'bob')).toEqual({ ann: [1] })
    }
    await look.hset('imengine:user:online', 'cat', '[5,null,[],["1"],[1,2,3,4,5],[[]]]')
    expect(await located(presence, 'cat')).toEqual({})
    expect(errors.map(({ code, context }) => [code, context.uid])).toEqual(Array.from({ length: 5 }, () => ['IM_PRESENCE_UNAVAILABLE', 'bob']))
    await presence.online(entry('bob', 1, 'b'))
    await presence.online(entry('cat', 1, 'c'))
    expect(await located(presence, 'bob', 'cat')).toEqual({ bob: [1], cat: [1] })
  })

  it('a key of another type under its name is a typed failure', async () => {
    const presence = open()
    await look.set('imengine:user:online', 'x')
    await expect(presence.online(entry('ann', 1, 'a'))).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
    await expect(presence.locate(['ann'])).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
  })

  it('scripts that somebody has flushed are sent again', async () => {
    const presence = open()
    await presence.online(entry('ann', 1, 'a'))
    await look.script('FLUSH')
    await presence.online(entry('bob', 1, 'b'))
    expect(await located(presence, 'ann', 'bob')).toEqual({ ann: [1], bob: [1] })
  })

  it('clusters with different prefixes do not see each other', async () => {
    const [one, two] = [open({ prefix: 'one:' }), open({ prefix: 'two:' })]
    await one.online(entry('ann', 1, 'a'))
    expect(await located(two, 'ann')).toEqual({})
  })

  it('a caller that failed to announce does not find its connection there after Redis was written again', async () => {
    const presence = open({ commandTimeoutMs: 50 })
    await presence.heartbeat(1, 60_000)
    server.freeze()
    const failed = expect(presence.online(entry('ann', 1, 'a'))).rejects.toMatchObject({ code: 'IM_PRESENCE_UNAVAILABLE' })
    await failed
    server.wake()
    await sleep(0)
    await until(() => Promise.resolve(presence.offline(entry('ann', 1, 'a'))).then(() => true, () => false), 'Redis answers')
    await look.flushall()
    await until(() => Promise.resolve(presence.heartbeat(1, 60_000)).then(() => true, () => false), 'a heartbeat arrives')
    expect(await located(presence, 'ann')).toEqual({})
  })
})
