import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { inspect } from 'node:util'
import { Redis } from 'ioredis'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { IMError, type PeerPushHost } from 'imengine'
import { redisCluster, type RedisCluster, type RedisClusterOptions } from 'imengine/redis'
import { sampleMessage } from 'imengine/testing'
import { checkOptions } from '../../../src/adapters/redis/options.ts'
import { freePort, hasRedisServer, RedisServer, until } from './redis-server.ts'

const ann = { uid: 'ann', nodeID: 1, connectionID: 'a', deviceFlag: 0, deviceLevel: 0 }
const host = (nodeID: number, over: Partial<PeerPushHost> = {}): PeerPushHost => ({ nodeID, pushed: () => undefined, kicked: () => undefined, ...over })
const never = (): AbortSignal => new AbortController().signal
const push = { key: { channelID: 'room', channelType: 2 }, messages: [sampleMessage(1)], uids: ['bob'] }
const kick = { uid: 'ann', deviceFlag: 0, deviceID: 'd', deviceLevel: 1 }
const UNAVAILABLE = { code: 'IM_PRESENCE_UNAVAILABLE' }
const UNREACHABLE = { code: 'IM_PEER_UNREACHABLE' }

function messageOf(options: object): string {
  try {
    redisCluster(options)
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

describe.skipIf(!hasRedisServer())('redisCluster without a Redis', () => {
  const clusters: RedisCluster[] = []
  const servers: RedisServer[] = []
  const errors: IMError[] = []

  afterEach(async () => {
    await Promise.all(clusters.splice(0).map((cluster) => cluster.close()))
    await Promise.all(servers.splice(0).map((server) => server.stop()))
    errors.length = 0
  })

  function open(options: RedisClusterOptions): RedisCluster {
    const cluster = redisCluster({ onError: (error) => errors.push(error), ...options })
    clusters.push(cluster)
    return cluster
  }

  async function serve(settings: readonly string[] = []): Promise<RedisServer> {
    const server = await RedisServer.start(settings)
    servers.push(server)
    return server
  }

  /** Resolves when the call has succeeded once. */
  const untilDone = (call: () => unknown, what: string): Promise<void> =>
    until(async () => {
      try {
        await call()
        return true
      } catch {
        return false
      }
    }, what)

  it('every call rejects with its code, in a bounded time, and is told once', async () => {
    const { presence, peerPush } = open({ url: `redis://127.0.0.1:${await freePort()}`, connectTimeoutMs: 200 })
    await expect(presence.leave(1)).rejects.toMatchObject(UNAVAILABLE)
    for (const call of [() => presence.online(ann), () => presence.locate(['ann']), () => presence.devices('ann'), () => presence.heartbeat(1, 1_000)]) {
      await expect(call()).rejects.toMatchObject({ ...UNAVAILABLE, retryable: true })
    }
    await expect(peerPush.start(host(1))).rejects.toMatchObject({ ...UNREACHABLE, context: { nodeID: 1 } })
    await expect(peerPush.push(2, push, never())).rejects.toMatchObject(UNREACHABLE)
    await expect(peerPush.kick(kick, never())).rejects.toMatchObject(UNREACHABLE)
    expect(errors.map(({ code }) => code)).toEqual(['IM_PRESENCE_UNAVAILABLE', 'IM_PEER_UNREACHABLE'])
  })

  it('a wrong password is told at once, and stands in no error', async () => {
    const server = await serve(['--requirepass', 'right-secret'])
    const url = `redis://:wrong-secret@127.0.0.1:${server.port}`
    const { presence, peerPush } = open({ url, connectTimeoutMs: 60_000 })
    const caught: unknown[] = []
    await Promise.resolve(presence.leave(1)).catch((error: unknown) => caught.push(error))
    await Promise.resolve(peerPush.start(host(1))).catch((error: unknown) => caught.push(error))
    expect(caught).toMatchObject([{ ...UNAVAILABLE, detail: expect.stringContaining('password') as string }, UNREACHABLE])
    for (const error of [...caught, ...errors] as IMError[]) {
      expect(inspect([error, error.cause, { ...(error.cause as object) }], { depth: 9, showHidden: true })).not.toContain('wrong-secret')
    }
  })

  it('the right password opens, in a URL, in options and in a client that stays its owner’s', async () => {
    const server = await serve(['--requirepass', 'right-secret'])
    const client = new Redis({ port: server.port, password: 'right-secret', db: 3, keyPrefix: 'mine:' })
    const given: RedisClusterOptions[] = [
      { url: `redis://:right-secret@127.0.0.1:${server.port}/3` },
      { options: { port: server.port, password: 'right-secret', db: 3 } },
      { client },
    ]
    for (const options of given) {
      const { presence } = open(options)
      await presence.online(ann)
      expect((await presence.locate(['ann'])).get('ann')).toEqual([1])
    }
    await Promise.all(clusters.splice(0).map((cluster) => cluster.close()))
    expect(await client.ping()).toBe('PONG')
    client.disconnect()
  })

  it('calls fail while Redis is gone, at once after the grace, and work again when it is back; presence has healed by itself', async () => {
    const server = await serve()
    const [one, two] = [1, 2].map(() => open({ url: server.url, reconnectGraceMs: 50 })) as [RedisCluster, RedisCluster]
    const pushed: string[] = []
    await one.peerPush.start(host(1))
    await two.peerPush.start(host(2, { pushed: ({ messages }) => void pushed.push(messages[0]!.clientMsgNo) }))
    await one.presence.heartbeat(1, 60_000)
    await one.presence.online(ann)
    await one.peerPush.push(2, push, never())
    await server.kill()
    await expect(one.presence.online({ ...ann, connectionID: 'b' })).rejects.toMatchObject(UNAVAILABLE)
    await expect(two.presence.locate(['ann'])).rejects.toMatchObject(UNAVAILABLE)
    await expect(one.peerPush.push(2, push, never())).rejects.toMatchObject(UNREACHABLE)
    await expect(one.peerPush.kick(kick, never())).rejects.toMatchObject(UNREACHABLE)
    await server.begin() // empty: nothing was kept
    // Nobody announces anything again, and no heartbeat is due for a minute.
    await until(async () => {
      const found = await Promise.resolve(two.presence.devices('ann')).catch(() => [])
      return found.length === 1 && found[0]!.connectionID === 'a'
    }, 'the other node sees ann again')
    await untilDone(() => one.peerPush.push(2, push, never()), 'a push arrives')
    await untilDone(() => two.peerPush.kick(kick, never()), 'a kick is confirmed')
    expect(pushed.length).toBe(2)
  })

  it('a Redis that holds the connection and is silent makes calls fail in time, and is used again when it answers', async () => {
    const server = await serve()
    const { presence, peerPush } = open({ url: server.url, commandTimeoutMs: 100, answerTimeoutMs: 300, checkIntervalMs: 100, reconnectGraceMs: 50 })
    await peerPush.start(host(1))
    await presence.heartbeat(1, 60_000)
    await presence.online(ann)
    server.freeze()
    await expect(presence.locate(['ann'])).rejects.toMatchObject(UNAVAILABLE)
    await expect(peerPush.push(1, push, never())).rejects.toMatchObject(UNREACHABLE)
    await until(() => errors.some(({ code }) => code === 'IM_PEER_UNREACHABLE'), 'the listening connection has noticed')
    server.wake()
    await untilDone(() => peerPush.push(1, push, never()), 'a push arrives')
    await untilDone(() => presence.locate(['ann']), 'presence answers')
    expect((await presence.locate(['ann'])).get('ann')).toEqual([1])
  })

  it('connections that are cut in the middle lose no push that is tried again, and make none twice', async () => {
    const server = await serve()
    const [one, two] = [1, 2].map(() => open({ url: server.url, answerTimeoutMs: 300 })) as [RedisCluster, RedisCluster]
    const arrived: number[] = []
    await one.peerPush.start(host(1))
    await two.peerPush.start(host(2, { pushed: ({ messages }) => void arrived.push(messages[0]!.messageSeq) }))
    const look = server.client()
    let failureCount = 0
    for (let seq = 1; seq <= 60; seq++) {
      const request = { ...push, messages: [sampleMessage(seq, { messageSeq: seq })] }
      const trying = untilDone(async () => {
        try {
          await one.peerPush.push(2, request, never())
        } catch (error) {
          failureCount++
          throw error
        }
      }, `push ${seq} is confirmed`)
      if (seq % 10 === 0) {
        const connections = (await look.client('LIST')) as string
        const ids = [...connections.matchAll(/^id=(\d+) .* name=imengine /gm)].map((match) => match[1]!)
        expect(ids.length).toBeGreaterThan(0)
        for (const id of ids) await look.call('CLIENT', 'KILL', 'ID', id).catch(() => undefined)
      }
      await trying
    }
    look.disconnect()
    expect(failureCount).toBeGreaterThan(0)
    expect(arrived).toEqual(Array.from({ length: 60 }, (_, index) => index + 1))
  })

  it('a question that was under way when its connection was cut is asked again on the next one', async () => {
    const server = await serve()
    const { presence } = open({ url: server.url })
    await presence.online(ann)
    const look = server.client()
    for (let count = 0; count < 5; count++) {
      await look.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      expect((await presence.locate(['ann'])).get('ann')).toEqual([1])
    }
    look.disconnect()
  })

  it('a client of the host that does not connect again by itself comes back all the same', async () => {
    const server = await serve()
    const client = new Redis({ port: server.port, lazyConnect: true, retryStrategy: () => null })
    const { presence } = open({ client })
    await presence.online(ann)
    await server.kill()
    await until(() => errors.length > 0, 'the loss is noticed')
    await server.begin()
    await untilDone(() => presence.heartbeat(1, 1_000), 'a heartbeat arrives')
    expect((await presence.locate(['ann'])).get('ann')).toEqual([1])
  })

  it('close ends while it connects, on a server that is silent, twice, and before anything was asked', async () => {
    const open_: Socket[] = []
    const silent = createServer((socket) => void open_.push(socket)).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const url = `redis://127.0.0.1:${(silent.address() as AddressInfo).port}`
    await open({ url }).close()
    const cluster = open({ url })
    const asked = [cluster.presence.leave(1), cluster.peerPush.start(host(1))].map((call) => expect(call).rejects.toBeInstanceOf(IMError))
    await cluster.close() // the driver is still being loaded
    const second = open({ url })
    asked.push(...[second.presence.leave(1), second.peerPush.start(host(1))].map((call) => expect(call).rejects.toBeInstanceOf(IMError)))
    await until(() => open_.length >= 2, 'both connections are open')
    await Promise.all([second.close(), second.peerPush.close()])
    await second.close()
    await Promise.all(asked)
    for (const socket of open_) socket.destroy()
    silent.close()
    await expect(second.presence.leave(1)).rejects.toMatchObject(UNAVAILABLE)
    await expect(second.peerPush.push(2, push, never())).rejects.toMatchObject(UNREACHABLE)
  })

  it('close leaves no timer and no socket, also when the server has gone before', async () => {
    const handles = (): string[] => process.getActiveResourcesInfo().filter((name) => /Timeout|TCPSocket/.test(name))
    const server = await serve()
    const before = handles().length
    const cluster = open({ url: server.url })
    await cluster.presence.online(ann)
    await cluster.peerPush.start(host(1))
    expect(handles().length).toBeGreaterThan(before)
    await server.kill()
    await until(() => errors.length === 2, 'both losses are noticed')
    await cluster.close()
    expect(handles().length).toBeLessThanOrEqual(before)
  })

  it('names the package that is missing', async () => {
    vi.doMock('ioredis', () => {
      throw new Error('not installed')
    })
    const { presence } = open({ url: 'redis://127.0.0.1:1' })
    await expect(presence.leave(1)).rejects.toMatchObject({ code: 'IM_DRIVER_MISSING', detail: 'npm install ioredis' })
    vi.doUnmock('ioredis')
  })

  it('docs/redis.md lists every option with its default, and no other', () => {
    const known = /known: (.*)\)$/.exec(messageOf({ url: 'redis://h', none: 1 }))![1]!.split(', ')
    const page = readFileSync(new URL('../../../docs/redis.md', import.meta.url), 'utf8')
    const rows = [...page.slice(page.indexOf('## Options'), page.indexOf('## What is in Redis')).matchAll(/^\| `(\w+)` \| ([^|]+) \|.*\|$/gm)]
    const listed = new Map(rows.map(([, name, byDefault]) => [name!, byDefault!]))
    expect([...listed.keys()]).toEqual(known)
    const { prefix, ...numbers } = checkOptions({ url: 'redis://h' })
    expect(listed.get('prefix')).toBe(`\`${prefix}\``)
    for (const [name, value] of Object.entries(numbers)) {
      if (typeof value !== 'number') continue
      const text = listed.get(name)!
      expect(text.endsWith(' MiB') ? parseInt(text, 10) * 1_048_576 : Number(text.replaceAll(' ', '')), name).toBe(value)
    }
  })

  it.each<[given: unknown, message: RegExp]>([
    [undefined, /options must be/],
    [{}, /needs one of url, options and client/],
    [{ url: 'redis://h', options: {} }, /needs one of/],
    [{ url: 'http://user:hush@h' }, /^imengine: url must be a redis: or rediss: URL, or the path of a Unix socket$/],
    [{ url: 7 }, /url must be/],
    [{ options: null }, /options must be options of ioredis/],
    [{ client: {} }, /client must be a Redis of ioredis/],
    [{ client: { duplicate: () => undefined, isCluster: true } }, /and no Cluster/],
    [{ url: 'redis://h', prefix: '' }, /prefix must be/],
    [{ url: 'redis://h', prefx: 'a' }, /redisCluster\.prefx must be left out: there is no such option/],
    [{ url: 'redis://h', onError: 1 }, /onError must be a function/],
    [{ url: 'redis://h', maxPublishBytes: 5 }, /maxPublishBytes must be an integer from 1024/],
  ])('wrong options are a TypeError: %o', (given, message) => {
    expect(() => redisCluster(given as RedisClusterOptions)).toThrow(TypeError)
    expect(() => redisCluster(given as RedisClusterOptions)).toThrow(message)
  })
})
