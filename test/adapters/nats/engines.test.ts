import { connect } from '@nats-io/transport-node'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { MemoryLevel } from 'memory-level'
import { allowAnyToken, ChannelType, DeviceLevel, IMEngine, memoryStorage, type AppendBatch, type IMEngineOptions, type Message } from 'imengine'
import { levelStorage, type AnyLevel } from 'imengine/level'
import { natsCluster } from 'imengine/nats'
import { connectTestClient, type TestClient } from 'imengine/testing'
import { logName } from './log.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers } from './servers.ts'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }
const UIDS = ['ann', 'bob', 'cat']

let servers: NatsServers
const engines: IMEngine[] = []

beforeAll(async () => {
  if (NATS_SERVER !== undefined) servers = await startNatsServers()
})

afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
})

afterAll(() => servers?.close())

/** One node: its own store, and the log, the presence and the pushes of the cluster. */
async function node(name: string, nodeID: number, options: Partial<IMEngineOptions> = {}): Promise<IMEngine> {
  const cluster = natsCluster({ servers: servers.urls, name, partitions: 2, log: { maxAgeMs: 600_000 } })
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), nodeID, storage: memoryStorage(), ...cluster, ...options })
  engines.push(engine)
  await engine.start()
  await engine.channels.create(TEAM, { subscribers: UIDS })
  return engine
}

describe.skipIf(NATS_SERVER === undefined)('three engines over one log', () => {
  // P2
  it('chat: every SENDACK has the number that the message has on every node, and everybody hears everything in that order', async () => {
    const name = logName()
    const nodes = await Promise.all([1, 2, 3].map((nodeID) => node(name, nodeID)))
    const clients: TestClient[] = []
    for (const [i, uid] of UIDS.entries()) clients.push((await connectTestClient(nodes[i]!, { uid })).client)
    const told = new Map<string, number>()
    await Promise.all(
      clients.map(async (client, i) => {
        for (let n = 0; n < 30; n++) {
          const clientMsgNo = `${UIDS[i]}-${n}`
          const { reasonCode, messageSeq } = await client.send({ ...TEAM, clientMsgNo, payload: clientMsgNo })
          expect(reasonCode).toBe(1)
          told.set(clientMsgNo, messageSeq)
        }
      }),
    )
    const expected = [...told].sort(([, a], [, b]) => a - b)
    expect(expected.map(([, messageSeq]) => messageSeq)).toEqual(Array.from({ length: 90 }, (_, i) => i + 1))
    await until(() => clients.every(({ messages }) => messages.length === 60), 25_000, 'not everybody has heard everything')
    for (const [i, { messages }] of clients.entries()) {
      const heard = expected.filter(([number]) => !number.startsWith(UIDS[i]!))
      expect(messages.map(({ text, messageSeq }) => [text, messageSeq])).toEqual(heard)
    }
    for (const engine of nodes) {
      const found: Message[] = []
      for await (const message of engine.messages.range(TEAM)) found.push(message)
      expect(found.map(({ clientMsgNo, messageSeq }) => [clientMsgNo, messageSeq])).toEqual(expected)
    }
  })

  it('remove what their stores need not keep, and know repeats of the same, though one of the stores has no bound of its own', async () => {
    const name = logName()
    const bounded = levelStorage({ db: new MemoryLevel<string, string>() as AnyLevel, dedupeFilterBytes: 65_536, retention: { maxCount: 3 } })
    const plain = levelStorage({ db: new MemoryLevel<string, string>() as AnyLevel, dedupeFilterBytes: 65_536 })
    const limits = { sweepIntervalMs: 100 }
    const [one, two] = await Promise.all([node(name, 1, { storage: bounded, limits }), node(name, 2, { storage: plain, limits })])
    const say = (engine: IMEngine, clientMsgNo: string) => engine.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo, payload: Buffer.from(clientMsgNo) })
    for (let n = 1; n <= 10; n++) await say(n % 2 === 0 ? one : two, `${n}`)
    const seqsOf = async ({ messages }: typeof plain): Promise<number[]> => (await messages.range(TEAM)).map(({ messageSeq }) => messageSeq)
    let left: number[][] = []
    await until(async () => (left = [await seqsOf(bounded), await seqsOf(plain)]).every(({ length }) => length === 3), 25_000, 'they keep too much')
    expect(left).toEqual([[8, 9, 10], [8, 9, 10]])
    expect((await say(two, '10')).messageSeq).toBe(10)
    expect((await say(two, '1')).messageSeq).toBe(11)
    expect((await say(one, '1')).messageSeq).toBe(11)
  })

  // P4
  it('answer a SEND that is repeated on another node with the number of the first', async () => {
    const name = logName()
    const [one, two] = await Promise.all([1, 2].map((nodeID) => node(name, nodeID)))
    const { client: here } = await connectTestClient(one!, { uid: 'ann', deviceID: 'a' })
    const { client: there } = await connectTestClient(two!, { uid: 'ann', deviceID: 'b' })
    const send = { ...TEAM, clientMsgNo: 'once', payload: 'hi' }
    const [first, second] = await Promise.all([here.send(send), there.send(send)])
    expect(second.messageSeq).toBe(first.messageSeq)
    expect(second.messageID).toBe(first.messageID)
    const third = await there.send({ ...TEAM, clientMsgNo: 'next', payload: 'x' })
    expect(third.messageSeq).toBe(2)
  })

  it('keep the same, whether their stores take messages as the bytes of the log or as plain objects', async () => {
    const name = logName()
    const given: AppendBatch[] = []
    const onDisk = levelStorage({ db: new MemoryLevel<string, string>() as AnyLevel, dedupeFilterBytes: 65_536 })
    const plain = memoryStorage()
    const append = plain.messages.append.bind(plain.messages)
    plain.messages.append = (batches, position) => {
      given.push(...batches)
      return append(batches, position)
    }
    const [one, two] = await Promise.all([node(name, 1, { storage: onDisk }), node(name, 2, { storage: plain })])
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    const { client: cat } = await connectTestClient(one, { uid: 'cat' })
    const sent = { ...TEAM, payload: Buffer.from([0, 255, 1]), expireSec: 3_600, redDot: true, syncOnce: false }
    await one.messages.send({ ...sent, fromUID: 'ann', clientMsgNo: 'by ann' })
    await two.messages.send({ ...sent, fromUID: 'dörte', clientMsgNo: 'by dörte', redDot: false })
    const numbers = ['3', '4', '5', '6']
    await Promise.all(numbers.map((clientMsgNo) => one.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo, payload: Buffer.from(clientMsgNo) }))) // in one entry
    await until(() => bob.messages.length === 6 && cat.messages.length === 6, 25_000, 'not everybody has heard all')

    const found = [await onDisk.messages.range(TEAM), await plain.messages.range(TEAM)]
    expect(found[0]!.map(({ payload, ...rest }) => ({ ...rest, payload: [...payload] }))).toEqual(found[1]!.map(({ payload, ...rest }) => ({ ...rest, payload: [...payload] })))
    expect(found[0]!.slice(0, 2)).toMatchObject([{ clientMsgNo: 'by ann', messageSeq: 1, expireSec: 3_600, redDot: true }, { fromUID: 'dörte', messageSeq: 2, redDot: false }])
    for (const { messages } of [bob, cat]) {
      expect(messages.map(({ messageID, messageSeq }) => [messageID, messageSeq])).toEqual(found[0]!.map(({ messageID, messageSeq }) => [messageID, messageSeq]))
      expect(messages.slice(2).map(({ text }) => text)).toEqual(numbers)
    }
    expect(given.map((batch) => Object.keys(batch))).toEqual(given.map(() => ['key', 'messages']))
  })

  it('let one of two masters in who come to two of them at the same moment', async () => {
    const name = logName()
    const master = { tokenVerifier: allowAnyToken({ deviceLevel: DeviceLevel.Master }) }
    const cluster = [await node(name, 1, master), await node(name, 2, master)]
    const counts: number[] = []
    for (let round = 0; round < 20; round++) {
      const uid = `user ${round}`
      // Both have been answered then: who is in stays, and who was in before that has been ended.
      await Promise.allSettled(cluster.map((engine, index) => connectTestClient(engine, { uid, deviceID: `phone-${index}` })))
      counts.push(cluster.reduce((count, engine) => count + engine.connections.list({ uid }).length, 0))
    }
    expect(counts).toEqual(counts.map(() => 1))
  })

  it('whose log cannot be followed tell onError, and refuse what goes through it', async () => {
    const name = logName()
    const errors: string[] = []
    const cluster = natsCluster({ servers: servers.urls, name, partitions: 1, onError: ({ code }) => void errors.push(code) })
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), nodeID: 1, storage: memoryStorage(), ...cluster })
    engines.push(engine)
    await engine.start()
    await engine.channels.create(TEAM, { subscribers: UIDS })
    const { client } = await connectTestClient(engine, { uid: 'ann' })
    expect((await client.send({ ...TEAM, payload: 'one' })).messageSeq).toBe(1)
    const { lastIndex } = cluster.replicator.status().partitions[0]!
    const told: boolean[] = []
    engine.on('isolated', ({ isIsolated }) => told.push(isIsolated))
    const nats = await connect({ servers: servers.urls })
    await nats.request(`${name}.log.0`, 'not an entry')
    await nats.close()
    await until(() => errors.includes('IM_LOG_FORMAT'), 25_000, 'nobody was told')
    await expect(engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('two') })).rejects.toMatchObject({ code: 'IM_SEND_FAILED' })
    expect(cluster.replicator.status().partitions[0]).toMatchObject({ appliedIndex: lastIndex, stopped: { code: 'IM_LOG_FORMAT' } })
    expect(told).toEqual([true]) // nothing of that partition would reach the clients here
    await client.closed
  })

  it('refuse options that are out of their range', () => {
    for (const options of [{ partitions: 0 }, { log: { maxAgeMs: 1 } }, { log: 1 as never }, { log: { onProblem: 1 as never } }]) {
      expect(() => natsCluster({ servers: 'nats://127.0.0.1', ...options }), JSON.stringify(options)).toThrow(TypeError)
    }
  })
})
