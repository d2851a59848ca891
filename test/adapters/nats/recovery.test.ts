import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { allowAnyToken, ChannelType, IMEngine, memoryStorage, ReasonCode, type IMEngineOptions, type Storage } from 'imengine'
import { levelStorage } from 'imengine/level'
import { natsCluster } from 'imengine/nats'
import { connectTestClient } from 'imengine/testing'
import { memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import { connectionTo, logName, LogNode, message, room } from './log.ts'
import { RouteProxies } from './route-proxies.ts'
import { NATS_SERVER, SERVERS_AGREE, startNatsServers, until, type NatsServers } from './servers.ts'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }
/** A log of the least size: these push the first ones out. */
const MANY = Array.from({ length: 60 }, (_, n) => ({ clientMsgNo: `m${n}`, payload: Buffer.alloc(30_000, n) }))

let servers: NatsServers
let folder: string
const engines: IMEngine[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'imengine-recovery-'))
  if (NATS_SERVER !== undefined) servers = await startNatsServers()
})

afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
})

afterAll(async () => {
  await servers?.close()
  await rm(folder, { recursive: true, force: true })
})

async function node(name: string, nodeID: number, storage: Storage, options: Partial<IMEngineOptions> = {}): Promise<IMEngine> {
  const log = { maxBytes: 2 ** 20, isolatedAfterMs: 200 }
  const engine = new IMEngine({
    tokenVerifier: allowAnyToken(), nodeID, storage, ...natsCluster({ servers: servers.urls, name, partitions: 1, reconnectPauseMs: 50, log }), ...options,
  })
  engines.push(engine)
  await engine.start()
  return engine
}

async function historyOf(engine: IMEngine): Promise<string[]> {
  const found: string[] = []
  for await (const { messageSeq, clientMsgNo } of engine.messages.range(TEAM)) found.push(`${messageSeq} ${clientMsgNo}`)
  return found
}

/** A way to the first server that can be cut. */
async function wayTo({ urls }: NatsServers) {
  const port = Number(new URL(urls[0]!).port)
  const sockets = new Set<Socket>()
  let isCut = false
  const drop = (): void => sockets.forEach((socket) => socket.destroy())
  const way = createServer((near) => {
    if (isCut) return void near.destroy()
    const far = connect(port, '127.0.0.1')
    for (const [socket, other] of [[near, far], [far, near]] as const) {
      sockets.add(socket)
      socket.on('error', () => undefined).on('close', () => (sockets.delete(socket), other.destroy())).pipe(other)
    }
  })
  await new Promise<void>((resolve) => way.listen(0, '127.0.0.1', resolve))
  return {
    url: `nats://127.0.0.1:${(way.address() as AddressInfo).port}`,
    cut: () => ((isCut = true), drop()),
    mend: () => (isCut = false),
    close: () => (drop(), new Promise((resolve) => way.close(resolve))),
  }
}

const level = (name: string, nodeID: number): Storage => levelStorage({ path: join(folder, `${name}-${nodeID}`), durability: 'os' })

describe.skipIf(NATS_SERVER === undefined)('a node that the log cannot help any more', () => {
  it('gets what another node has, as a node that is new does, and goes on from there', async () => {
    const name = logName()
    const one = await node(name, 1, level(name, 1))
    const away = await node(name, 2, level(name, 2))
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    await one.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo: 'first', payload: Buffer.from('first') })
    await until(async () => (await historyOf(away)).length === 1, 25_000, 'the other node has not applied it')
    await away.close()
    for (const each of MANY) await one.messages.send({ ...TEAM, fromUID: 'ann', ...each })
    await one.channels.subscribers.add(TEAM, ['cat'])
    await one.users.setSendBan('bob', true)

    for (const nodeID of [2, 3]) {
      const back = await node(name, nodeID, level(name, nodeID))
      expect(await historyOf(back)).toEqual(await historyOf(one))
      expect((await back.channels.subscribers.list(TEAM)).items.map(({ uid }) => uid)).toEqual(['ann', 'bob', 'cat'])
      expect((await back.users.flags('bob')).sendBanned).toBe(true)
      const again = await back.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo: 'first', payload: Buffer.from('first') })
      expect(again.messageSeq).toBe(1)
      const { client } = await connectTestClient(back, { uid: 'cat' })
      const next = await one.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(`to ${nodeID}`) })
      await until(() => client.messages.some(({ messageSeq }) => messageSeq === next.messageSeq), 25_000, 'nothing was pushed')
    }
  })

  it('and that no other node is there for does not start: IM_LOG_GAP', async () => {
    const name = logName()
    const one = await node(name, 1, level(name, 1))
    await one.channels.create(TEAM, { subscribers: ['ann'] })
    for (const each of MANY) await one.messages.send({ ...TEAM, fromUID: 'ann', ...each })
    await one.close()
    await expect(node(name, 2, level(name, 2))).rejects.toMatchObject({ code: 'IM_LOG_GAP' })
  })

  it('whose storage takes no snapshots does not start either, and says the same', async () => {
    const name = logName()
    const one = await node(name, 1, level(name, 1))
    await one.channels.create(TEAM, { subscribers: ['ann'] })
    for (const each of MANY) await one.messages.send({ ...TEAM, fromUID: 'ann', ...each })
    await expect(node(name, 2, memoryStorage())).rejects.toMatchObject({ code: 'IM_LOG_GAP' })
  })

  it('and whose helper breaks down in the middle is left without anything, and told', async () => {
    const name = logName()
    const log = { servers: servers.urls, name, partitions: 1, maxBytes: 2 ** 20 }
    const giver = new LogNode({ ...log, nodeID: 1 })
    giver.snapshot = async function* () {
      yield Buffer.from('a piece')
      throw new Error('the disk')
    }
    await giver.start()
    for (const { clientMsgNo, payload } of MANY) await giver.propose(room('a'), [message(room('a'), clientMsgNo, payload)])
    const restored: string[] = []
    const taker = new LogNode({ ...log, nodeID: 2 })
    taker.restore = async (chunks) => {
      for await (const chunk of chunks) restored.push(Buffer.from(chunk).toString())
    }
    await expect(taker.start()).rejects.toMatchObject({ code: 'IM_CLUSTER_UNAVAILABLE' })
    expect(restored).toEqual(['a piece'])
    expect(giver.problems.map(({ error }) => (error.cause as Error).message)).toEqual(['the disk'])
    await giver.close()
    await taker.close()
  })

  /** Somebody who offers a snapshot, is asked for it, and says that it cannot be given. */
  async function offering(name: string, nodeID: number, positions: Record<string, number>): Promise<{ readonly asked: () => number; close(): Promise<void> }> {
    const connection = connectionTo(servers.urls)
    const nats = await connection.acquire()
    let askedCount = 0
    nats.subscribe(`${name}.snapshot.who`, { callback: (_error, question) => void question.respond(JSON.stringify({ nodeID, positions })) })
    nats.subscribe(`${name}.snapshot.of.${nodeID}`, {
      callback: (_error, question) => {
        askedCount++
        question.respond(Buffer.from([2, 0, 0, 0, 0]))
      },
    })
    await nats.flush()
    return { asked: () => askedCount, close: () => connection.release() }
  }

  it('takes it from the next one when the one that is furthest has too much to do, and loses nothing meanwhile', async () => {
    const name = logName()
    const one = await node(name, 1, level(name, 1))
    const away = await node(name, 2, level(name, 2))
    await one.channels.create(TEAM, { subscribers: ['ann'] })
    await until(async () => (await away.channels.get(TEAM)) !== undefined, 25_000, 'the other node has not applied it')
    await away.close()
    for (const each of MANY) await one.messages.send({ ...TEAM, fromUID: 'ann', ...each })
    const busy = await offering(name, 9, { [`${name}_log_0`]: 1_000_000 })
    const back = await node(name, 2, level(name, 2))
    expect(busy.asked()).toBe(1)
    expect(await historyOf(back)).toEqual(await historyOf(one))
    await busy.close()
  })

  it('does not ask one that could help with one partition, and has stopped in another', async () => {
    const name = logName()
    const log = { servers: servers.urls, name, partitions: 2, maxBytes: 2 ** 20 }
    const writer = new LogNode({ ...log, nodeID: 1 })
    await writer.start()
    const rooms = ['a', 'b', 'c', 'd', 'e', 'f'].map(room)
    for (const key of rooms) for (const { clientMsgNo, payload } of MANY) await writer.propose(key, [message(key, clientMsgNo, payload)])
    await writer.close()
    const stopped = await offering(name, 9, { [`${name}_log_0`]: 1_000_000, [`${name}_log_1`]: 1 })
    const store = memoryMessageStore()
    void store.append([], { log: `${name}_log_1`, index: writer.appliedIndexes[1]! }) // only the other one is behind
    const taker = new LogNode({ ...log, nodeID: 2, store })
    taker.restore = () => Promise.reject(new Error('it is asked for'))
    await expect(taker.start()).rejects.toMatchObject({ code: 'IM_LOG_GAP' })
    expect(stopped.asked()).toBe(0)
    await stopped.close()
    await taker.close()
  })
})

describe.skipIf(NATS_SERVER === undefined)('a node that is cut off from NATS', () => {
  it('acknowledges nothing, says so, and sends its clients away; and serves them again when it has the servers back', async () => {
    const own = await startNatsServers()
    try {
      const engine = new IMEngine({
        tokenVerifier: allowAnyToken(), storage: memoryStorage(), limits: { replicateTimeoutMs: 500 },
        ...natsCluster({ servers: own.urls, partitions: 1, reconnectPauseMs: 50, log: { isolatedAfterMs: 1_500 } }),
      })
      engines.push(engine)
      await engine.start()
      await engine.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
      const told: boolean[] = []
      engine.on('isolated', ({ isIsolated }) => told.push(isIsolated))
      const { client: ann, pair } = await connectTestClient(engine, { uid: 'ann' })
      await own.kill(0)
      expect((await ann.send({ ...TEAM, payload: 'lost?', clientMsgNo: 'once' })).reasonCode).toBe(ReasonCode.NodeNotMatch)
      await until(() => told.length === 1, 25_000, 'it does not say that it is isolated')
      await until(() => engine.connections.count() === 0, 25_000, 'its clients are still there')
      pair.client.end()
      await own.start(0)
      await own.ready()
      await until(() => told.length === 2, 25_000, 'it does not say that it is not isolated any more')
      expect(told).toEqual([true, false])
      const { client } = await connectTestClient(engine, { uid: 'ann' })
      expect(await client.send({ ...TEAM, payload: 'lost?', clientMsgNo: 'once' })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    } finally {
      await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
      await own.close()
    }
  })

  it('is back when it has what it missed, although it is never at the end of what goes on meanwhile', async () => {
    const name = logName()
    const way = await wayTo(servers)
    const writer = await new LogNode({ nodeID: 1, servers: servers.urls, name, partitions: 1 }).start()
    const key = room('busy')
    const say = (): Promise<unknown> => writer.propose(key, [message(key)])
    let isBusy = false
    /** What is being applied is applied when something behind it is known there, and not before. */
    const untilBehind = async (): Promise<void> => {
      if (!isBusy) return
      await say()
      const [said] = writer.appliedIndexes
      await until(() => !isBusy || partition().lastIndex >= said!, 10_000, 'what is said does not arrive')
    }
    const cut = new LogNode({ nodeID: 2, servers: [way.url], name, partitions: 1, isolatedAfterMs: 300, beforeApply: untilBehind })
    const partition = () => cut.replicator.status().partitions[0]!
    try {
      await cut.start()
      await say()
      way.cut()
      await until(() => cut.isolations.length === 1, 10_000, 'it does not say that it is isolated')
      await say()
      await say()
      isBusy = true
      way.mend()
      await until(() => cut.isolations.length === 2, 15_000, 'it does not say that it is not isolated any more')
      expect(cut.isolations).toEqual([true, false])
      expect(partition().appliedIndex).toBeLessThan(partition().lastIndex)
    } finally {
      isBusy = false
      await Promise.all([cut.close(), writer.close()])
      await way.close()
    }
  })

  it.skipIf(!SERVERS_AGREE && process.env['CLUSTER_FULL'] !== '1')('by way of a server that has lost the other servers: the same, though its connection holds', async () => {
    const proxies = new RouteProxies()
    const own = await startNatsServers({ count: 3, routeVia: proxies.via })
    try {
      const engine = new IMEngine({
        tokenVerifier: allowAnyToken(), storage: memoryStorage(), limits: { replicateTimeoutMs: 500 },
        ...natsCluster({ servers: own.url(0), replicas: 3, partitions: 2, log: { isolatedAfterMs: 500 } }),
      })
      engines.push(engine)
      await engine.start()
      await engine.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
      const told: boolean[] = []
      engine.on('isolated', ({ isIsolated }) => told.push(isIsolated))
      const { client: ann, pair } = await connectTestClient(engine, { uid: 'ann' })
      expect((await ann.send({ ...TEAM, payload: 'x', clientMsgNo: 'before' })).reasonCode).toBe(ReasonCode.Success)
      told.length = 0 // a leader that is being chosen may have taken longer than the little that is allowed here
      proxies.cut(0)
      await until(() => told.includes(true), 60_000, 'it does not say that it is isolated')
      await until(() => engine.connections.count() === 0, 25_000, 'its clients are still there')
      pair.client.end()
      proxies.heal(0)
      await until(() => told.at(-1) === false, 60_000, 'it does not say that it is not isolated any more')
    } finally {
      await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
      await own.close()
      proxies.close()
    }
  }, 150_000)
})
