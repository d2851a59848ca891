import { allowAnyToken, IMEngine, memoryPeerHub, memoryPresence, type ChannelKey, type IMEngineOptions, type Webhook, type WebhookEvent } from 'imengine'
import { postgresStorage, type PostgresStorage } from 'imengine/postgres'
import { connectTestClient, sampleMessage } from 'imengine/testing'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { binaries, TestServer } from './server.ts'

const TEAM: ChannelKey = { channelID: 'team', channelType: 2 }

const engines: IMEngine[] = []
const storages: PostgresStorage[] = []
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
  await Promise.all(storages.splice(0).map((storage) => storage.close()))
})

describe.skipIf(binaries === undefined)('several engines over one PostgreSQL database', () => {
  let server: TestServer
  let url: string

  beforeAll(async () => {
    server = await TestServer.start()
  })
  afterAll(() => server.close())
  beforeEach(async () => {
    url = server.url(await server.makeDatabase())
  })

  async function node(nodeID: number, options: Partial<IMEngineOptions>): Promise<IMEngine> {
    const storage = postgresStorage({ connectionString: url, instance: `node-${nodeID}` })
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), nodeID, storage, ...options })
    engines.push(engine)
    await engine.start()
    return engine
  }

  async function pair(optionsOf: (nodeID: number) => Partial<IMEngineOptions> = () => ({})): Promise<[IMEngine, IMEngine]> {
    const [presence, hub] = [memoryPresence(), memoryPeerHub()]
    const one = await node(1, { presence, peerPush: hub.peer(), ...optionsOf(1) })
    const two = await node(2, { presence, peerPush: hub.peer(), ...optionsOf(2) })
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    return [one, two]
  }

  async function storageOf(): Promise<PostgresStorage> {
    const storage = postgresStorage({ connectionString: url })
    storages.push(storage)
    await storage.open()
    return storage
  }

  it('deliver to each other’s connections what is sent through either, once', async () => {
    const [one, two] = await pair()
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    for (let count = 1; count <= 5; count++) {
      expect(await ann.send({ ...TEAM, payload: `ann ${count}` })).toMatchObject({ reasonCode: 1 })
      expect(await bob.send({ ...TEAM, payload: `bob ${count}` })).toMatchObject({ reasonCode: 1 })
    }
    await vi.waitUntil(() => ann.messages.length === 5 && bob.messages.length === 5, { timeout: 20_000 })
    expect(ann.messages.map(({ messageSeq, text }) => [messageSeq, text])).toEqual([1, 2, 3, 4, 5].map((count) => [2 * count, `bob ${count}`]))
    expect(bob.messages.map(({ messageSeq, text }) => [messageSeq, text])).toEqual([1, 2, 3, 4, 5].map((count) => [2 * count - 1, `ann ${count}`]))
  })

  it('that get the same clientMsgNo at the same time store one message under one number, and both tell that', async () => {
    const [one, two] = await pair()
    for (let round = 1; round <= 20; round++) {
      const request = { ...TEAM, fromUID: 'ann', clientMsgNo: `again-${round}`, payload: Buffer.from('hello') }
      const [first, second] = await Promise.all([one.messages.send(request), two.messages.send(request)])
      expect([first.messageID, first.messageSeq]).toEqual([second.messageID, second.messageSeq])
      expect(first.messageSeq).toBe(round)
    }
  })

  it('give the numbers of a channel without gap or repeat, whoever writes how many', async () => {
    const all = [await storageOf(), await storageOf(), await storageOf()]
    const keys = ['a', 'b', 'c', 'd'].map((channelID) => ({ channelID, channelType: 2 }))
    const given = new Map<string, number[]>(keys.map(({ channelID }) => [channelID, []]))
    let n = 0
    const write = async (storage: PostgresStorage, writer: number): Promise<void> => {
      for (let round = 0; round < 25; round++) {
        // Several channels in one call, each writer in another order: nobody may end up waiting in a circle.
        const batches = Array.from({ length: 3 }, (_, index) => keys[(writer + round * 3 + index * (1 + (writer % 3))) % 4]!)
        const results = await storage.messages.append(batches.map((key) => ({ key, messages: [1, 2].map(() => sampleMessage(++n, { ...key, fromUID: `u${n % 7}` })) })))
        for (const [index, key] of batches.entries()) given.get(key.channelID)!.push(...results[index]!.map(({ messageSeq }) => messageSeq))
      }
    }
    await Promise.all(all.flatMap((storage, index) => [1, 2, 3, 4].map((part) => write(storage, index * 4 + part))))
    for (const key of keys) {
      const numbers = given.get(key.channelID)!.sort((a, b) => a - b)
      expect(numbers).toEqual(numbers.map((_, index) => index + 1))
      expect((await all[0]!.messages.range(key, { limit: 10_000 })).map(({ messageSeq }) => messageSeq)).toEqual(numbers)
    }
    expect([...given.values()].flat()).toHaveLength(3 * 4 * 25 * 6)
  })

  it('see what another has written at once: members, flags, tokens, revisions, removals', async () => {
    const [one, two] = [await storageOf(), await storageOf()]
    await one.channels.putMembers(TEAM, [{ uid: 'ann', role: 2 }])
    expect(await two.channels.member(TEAM, 'ann')).toEqual({ uid: 'ann', role: 2 })
    await Promise.all([one.channels.setUserFlags('ann', { banned: true }), two.channels.setUserFlags('ann', { sendBanned: true })])
    expect(await one.channels.userFlags('ann')).toEqual({ banned: true, sendBanned: true })
    expect('changeCount' in one.channels).toBe(false)
    await one.tokens.putToken('ann', { deviceFlag: 1, deviceLevel: 1, digest: new Uint8Array(32).fill(7) })
    expect(await two.tokens.token('ann', 1)).toMatchObject({ deviceLevel: 1 })
    await one.messages.append([{ key: TEAM, messages: [1, 2, 3].map((n) => sampleMessage(n, TEAM)) }])
    const edits = [one, two].map(async (storage, index) => storage.messages.revise(TEAM, 2, { kind: 'edited', byUID: 'ann', timestampMs: 5, payload: Buffer.from(String(index)) }))
    expect((await Promise.all(edits)).map((message) => message?.revision?.version).sort()).toEqual([1, 2])
    await two.messages.revise(TEAM, 3, { kind: 'recalled', byUID: 'ann', timestampMs: 6 })
    expect(await one.messages.countAfter(TEAM, 0)).toBe(2)
    await two.messages.truncate(TEAM, 2)
    expect(await one.messages.summaries('ann', [TEAM])).toMatchObject([{ lastSeq: 3, floorSeq: 1, sentSeq: 3 }])
  })

  it('that sweep and write at the same time leave standings that fit what is there', async () => {
    const [one, two] = [await storageOf(), await storageOf()]
    let n = 0
    const gone = { timestampMs: 1_000_000, expireSec: 1 }
    const write = async (storage: PostgresStorage): Promise<void> => {
      for (let round = 0; round < 20; round++) {
        await storage.messages.append([{ key: TEAM, messages: [1, 2, 3].map(() => sampleMessage(++n, { ...TEAM, ...(n % 2 === 0 ? gone : {}) })) }])
        await storage.messages.sweep!(Date.now())
      }
    }
    await Promise.all([write(one), write(two)])
    const [results] = await Promise.all([one, two].map(async (storage) => await storage.messages.sweep!(Date.now())))
    expect(results!.isDone).toBe(true)
    const left = await one.messages.range(TEAM, { limit: 1000 })
    expect(left).toHaveLength(60)
    const [summary] = await two.messages.summaries('ann', [TEAM])
    expect(summary).toMatchObject({ lastSeq: 120, floorSeq: left[0]!.messageSeq - 1 })
    for (let afterSeq = 0; afterSeq <= 120; afterSeq += 7) {
      expect(await two.messages.countAfter(TEAM, afterSeq)).toBe(left.filter(({ messageSeq }) => messageSeq > afterSeq).length)
    }
  })

  it('tell the webhook each what was sent through it, once', async () => {
    const told: [nodeID: number, clientMsgNo: string][] = []
    const webhookOf = (nodeID: number): Webhook => ({
      events: ['msg.notify'],
      notify: async (events: readonly WebhookEvent[]) => {
        for (const event of events) if (event.event === 'msg.notify') told.push(...event.messages.map(({ clientMsgNo }) => [nodeID, clientMsgNo] as [number, string]))
      },
    })
    const [one, two] = await pair((nodeID) => ({ webhook: webhookOf(nodeID) }))
    const requests = Array.from({ length: 20 }, (_, index) => ({ ...TEAM, fromUID: 'ann', clientMsgNo: `no-${index}`, payload: Buffer.from('x') }))
    await Promise.all(requests.map((request, index) => (index % 2 === 0 ? one : two).messages.send(request)))
    await vi.waitUntil(() => told.length >= 20, { timeout: 20_000 })
    expect(told.sort((a, b) => Number(a[1].slice(3)) - Number(b[1].slice(3)))).toEqual(requests.map(({ clientMsgNo }, index) => [index % 2 === 0 ? 1 : 2, clientMsgNo]))
  })

  it('of which two have a webhook and the same instance: the second one does not start', async () => {
    const webhook: Webhook = { notify: async () => undefined }
    await node(1, { webhook })
    const storage = postgresStorage({ connectionString: url, instance: 'node-1' })
    storages.push(storage)
    const second = new IMEngine({ tokenVerifier: allowAnyToken(), nodeID: 2, storage, webhook })
    engines.push(second)
    await expect(second.start()).rejects.toMatchObject({ code: 'IM_STORE_LOCKED' })
  })
})
