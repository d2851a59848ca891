import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { allowAnyToken, DeviceLevel, IMEngine, memoryStorage, type IMEngineOptions, type IMError, type Storage } from 'imengine'
import { FrameType } from 'imengine/protocol'
import { redisCluster } from 'imengine/redis'
import { connectTestClient } from 'imengine/testing'
import { TEAM } from '../../support.ts'
import { hasRedisServer, RedisServer, until } from './redis-server.ts'

// #region node
/** One node of several. All have the same store and the same Redis; each has a `nodeID` of its own. */
function nodeOf(url: string, nodeID: number, storage: Storage, options: Partial<IMEngineOptions> = {}): IMEngine {
  const { presence, peerPush } = redisCluster({ url }) // one for each engine, which closes it
  return new IMEngine({ tokenVerifier: allowAnyToken(), nodeID, storage, presence, peerPush, ...options })
}
// #endregion

describe.skipIf(!hasRedisServer())('nodes that share a store and a Redis', () => {
  let server: RedisServer
  let look: Redis
  const engines: IMEngine[] = []
  const children: ChildProcess[] = []
  const errors: IMError[] = []

  beforeAll(async () => {
    server = await RedisServer.start()
    look = server.client()
  })
  afterAll(async () => {
    look.disconnect()
    await server.stop()
  })
  beforeEach(() => look.flushall())
  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
    for (const child of children.splice(0)) if (child.exitCode === null && child.signalCode === null) await killed(child)
    errors.length = 0
  })

  async function start(count: number, options: Partial<IMEngineOptions> = {}): Promise<IMEngine[]> {
    const storage = memoryStorage()
    const started = Array.from({ length: count }, (_, index) => nodeOf(server.url, index + 1, storage, options))
    engines.push(...started)
    for (const engine of started) {
      engine.on('error', (error) => errors.push(error))
      await engine.start()
    }
    await started[0]!.channels.create(TEAM, { subscribers: ['ann', 'bob', 'cat'] })
    return started
  }

  async function killed(child: ChildProcess): Promise<void> {
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  async function connectionIDs(): Promise<string[]> {
    const connections = (await look.client('LIST')) as string
    return [...connections.matchAll(/^id=(\d+) .* name=imengine /gm)].map((match) => match[1]!)
  }

  it('deliver to each other’s connections, in order, to all devices but the sending one', async () => {
    const [one, two, three] = (await start(3)) as [IMEngine, IMEngine, IMEngine]
    const { client: ann } = await connectTestClient(one, { uid: 'ann', deviceID: 'a' })
    const { client: annToo } = await connectTestClient(two, { uid: 'ann', deviceID: 'b' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    const { client: cat } = await connectTestClient(three, { uid: 'cat' })
    const all = Array.from({ length: 30 }, (_, index) => index + 1)
    for (const seq of all) await ann.send({ ...TEAM, payload: String(seq) })
    for (const client of [annToo, bob, cat]) {
      await until(() => client.messages.length === 30, 'everything has arrived')
      expect(client.messages.map(({ messageSeq }) => messageSeq)).toEqual(all)
    }
    await cat.send({ ...TEAM, payload: 'back' })
    await until(() => ann.messages.length === 1, 'ann has the answer')
    expect(errors).toEqual([])
  })

  it('end an older master login on the other node', async () => {
    const [one, two] = (await start(2, { tokenVerifier: allowAnyToken({ deviceLevel: DeviceLevel.Master }) })) as [IMEngine, IMEngine]
    const old = await connectTestClient(one, { uid: 'ann', deviceID: 'a' })
    await connectTestClient(two, { uid: 'ann', deviceID: 'b' })
    expect(await old.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: 12 })
    await until(() => one.connections.list().length === 0, 'the older one is gone')
    expect(two.connections.list().map(({ deviceID }) => deviceID)).toEqual(['b'])
    expect(errors).toEqual([])
  })

  it('lose nothing and double nothing when their connections to Redis are cut while messages are sent', async () => {
    const [one, two] = (await start(2)) as [IMEngine, IMEngine]
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    for (let count = 1; count <= 60; count++) {
      await ann.send({ ...TEAM, payload: String(count) })
      if (count % 15 !== 0) continue
      await until(async () => (await connectionIDs()).length === 4, 'all connections are open')
      for (const id of await connectionIDs()) await look.call('CLIENT', 'KILL', 'ID', id).catch(() => undefined)
    }
    await until(() => bob.messages.length >= 60, 'everything has arrived')
    expect(bob.messages.map(({ messageSeq }) => messageSeq)).toEqual(Array.from({ length: 60 }, (_, index) => index + 1))
  })

  it('see the users of a killed process go with its third missed heartbeat, and clean up after it', async () => {
    const [one] = (await start(1, { limits: { presenceHeartbeatMs: 300 } })) as [IMEngine]
    const child = fork(fileURLToPath(new URL('node-child.ts', import.meta.url)), [server.url, '9', 'bob'], {
      execArgv: ['--import', 'tsx'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    children.push(child)
    expect(await once(child, 'message')).toContain('connected')
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    child.send('next')
    const text = once(child, 'message')
    await ann.send({ ...TEAM, payload: 'over there' })
    expect(await text).toContain('over there')
    expect(await one.presence.query(['bob'])).toMatchObject([{ uid: 'bob', online: true }])
    // It lives for longer than three intervals: its heartbeats keep it.
    const deadlineMs = async (): Promise<number> => Number((await look.hget('imengine:nodes', '9'))?.split('|')[1])
    const redisMs = async (): Promise<number> => Number((await look.time())[0]) * 1_000
    await until(async () => (await deadlineMs()) < (await redisMs()) + 10_000, 'it has sent its first heartbeat')
    const first = await deadlineMs()
    await until(async () => (await deadlineMs()) > first + 3 * 300, 'three intervals have passed')
    await killed(child)
    await until(async () => (await one.presence.query(['bob']))[0]?.online === false, 'bob is gone')
    const isClean = async (): Promise<boolean> => (await look.keys('imengine:node:9:*')).length === 0 && (await look.hexists('imengine:user:online', 'bob')) === 0
    await until(isClean, 'what it left is gone')
  })

  it('find each other again after a Redis that keeps nothing was started anew', async () => {
    const [one, two] = (await start(2)) as [IMEngine, IMEngine] // with the default heartbeat of five seconds
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    look.disconnect()
    await server.kill()
    await ann.send({ ...TEAM, payload: 'stored, and not seen' })
    await server.begin()
    look = server.client()
    await until(async () => (await look.hlen('imengine:user:online')) === 2, 'both are there again')
    await until(async () => Number(((await look.call('PUBSUB', 'NUMSUB', 'imengine:peer:2')) as [string, number])[1]) === 1, 'the other node listens')
    await until(async () => {
      await ann.send({ ...TEAM, payload: 'seen' })
      return bob.messages.length > 0
    }, 'bob receives again')
    expect(bob.messages[0]?.text).toMatch(/seen$/)
  })

  it('close within a bounded time when Redis has gone, and leave Redis empty when it has not', async () => {
    const [one, two] = (await start(2)) as [IMEngine, IMEngine]
    await connectTestClient(one, { uid: 'ann' })
    await connectTestClient(two, { uid: 'bob' })
    await one.close()
    expect(await look.hkeys('imengine:nodes')).toEqual(['2'])
    expect(await look.hkeys('imengine:user:online')).toEqual(['bob'])
    look.disconnect()
    await server.kill()
    await two.close({ drainMs: 100 })
    expect(two.state).toBe('closed')
    await server.begin()
    look = server.client()
  })
})
