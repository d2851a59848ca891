import {
  ChannelType, DeviceFlag, DeviceLevel, IMEngine, MemberRole, memoryPeerHub, memoryPresence, memoryReplicatorHub, memoryStorage, ReasonCode, staticTokenVerifier,
  allowAnyToken, type IMEngineOptions, type MessageStore, type MemoryReplicatorHub, type ReplicatorHost, type Storage, type Webhook,
} from 'imengine'
import { connectTestClient, FakeClock, seededRandom, type TestClient } from 'imengine/testing'
import { afterEach, describe, expect, it } from 'vitest'
import { channelKeyString } from '../../src/model/channel.ts'
import { FrameType, type EventPacket } from '../../src/model/frames.ts'
import { openSocket } from '../connection/raw.ts'
import { deferred, storageWith, TEAM } from '../support.ts'

const engines: IMEngine[] = []
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
})

interface Cluster {
  readonly clock: FakeClock
  readonly hub: MemoryReplicatorHub
  readonly storages: Storage[]
  node(nodeID: number, options?: Partial<IMEngineOptions>): Promise<IMEngine>
}

/** Nodes over one log, each with a storage of its own, which knows each other by presence and peer pushes. */
function cluster(common: Partial<IMEngineOptions> = {}): Cluster {
  const clock = new FakeClock()
  const hub = memoryReplicatorHub({ clock })
  const presence = memoryPresence({ nowMs: () => clock.monotonicMs() })
  const peers = memoryPeerHub()
  const storages: Storage[] = []
  return {
    clock,
    hub,
    storages,
    node: async (nodeID, options = {}) => {
      const storage = (storages[nodeID] ??= memoryStorage({ nowMs: () => clock.nowMs() }))
      const engine = new IMEngine({
        tokenVerifier: allowAnyToken(), nodeID, clock, random: seededRandom(nodeID), storage, replicator: hub.replicator(), presence,
        peerPush: peers.peer(), ...common, ...options,
      })
      engines.push(engine)
      await engine.start()
      return engine
    },
  }
}

async function pair(common: Partial<IMEngineOptions> = {}) {
  const made = cluster(common)
  const [one, two] = [await made.node(1), await made.node(2)]
  await one.channels.create(TEAM, { subscribers: ['ann', 'bob', 'cat'] })
  await made.clock.settle()
  return { ...made, one, two }
}

const bytes = (text: string): Uint8Array => Buffer.from(text)

async function texts(engine: IMEngine): Promise<string[]> {
  const found: string[] = []
  for await (const { payload, revision } of engine.messages.range(TEAM)) {
    found.push(`${Buffer.from(payload).toString()}${revision === undefined ? '' : ` (${revision.kind} ${revision.version})`}`)
  }
  return found
}

function eventsOf(client: TestClient): string[] {
  return client.received.filter((frame): frame is EventPacket => frame.type === FrameType.EVENT).map(({ eventType }) => eventType)
}

describe('what has expired', () => {
  it('is removed on every node at the same place of the log, found by the one that looks first', async () => {
    const { one, two, clock, storages } = await pair({ limits: { sweepIntervalMs: 60_000 } })
    const discards = [1, 2].map((nodeID) => {
      const { messages } = storages[nodeID]!
      const discarded: number[] = []
      const discard = messages.discard!.bind(messages)
      messages.discard = async (removals) => {
        const count = await discard(removals)
        discarded.push(count)
        return count
      }
      return discarded
    })
    const say = (engine: IMEngine, clientMsgNo: string, expireSec = 0) => engine.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo, expireSec, payload: bytes(clientMsgNo) })
    await say(one, 'soon gone', 20)
    await say(two, 'kept')
    await clock.advance(30_000)
    expect(await say(two, 'soon gone', 20)).toMatchObject({ messageSeq: 1 }) // it is hidden, and there
    await clock.advance(120_000)
    expect(discards).toEqual([[1], [1]])
    expect(await say(two, 'soon gone')).toMatchObject({ messageSeq: 3 })
    for (const engine of [one, two]) expect(await texts(engine)).toEqual(['kept', 'soon gone'])
  })

  it('is looked for by each node at its own place of the minute, whenever the node was started', async () => {
    const { clock, node, storages } = cluster({ limits: { sweepIntervalMs: 60_000 } })
    const looks: number[][] = []
    for (const nodeID of [1, 2, 3]) {
      const storage = (storages[nodeID] = memoryStorage({ nowMs: () => clock.nowMs() }))
      const due = storage.messages.due!.bind(storage.messages)
      const times = (looks[nodeID] = [] as number[])
      storage.messages.due = (nowMs, maxCount) => {
        times.push(nowMs % 60_000)
        return due(nowMs, maxCount)
      }
      await node(nodeID)
      await clock.advance(22_918) // what lies between the places of the first two
    }
    await clock.advance(180_000)
    const places = looks.slice(1).map((times) => [...new Set(times.map((ms) => Math.round(ms / 1_000)))])
    expect(places).toEqual([[37], [14], [51]])
    expect(Math.min(...looks.slice(1).map(({ length }) => length))).toBeGreaterThanOrEqual(3)
  })

  it('is left where a node’s store cannot say what is due', async () => {
    const { one, clock } = await pair({ limits: { sweepIntervalMs: 60_000 } })
    const plain = memoryStorage({ nowMs: () => clock.nowMs() })
    const { append, range, lastSeq, findByClientMsgNo, get, truncate, summaries, countAfter, personChannelsOf, revise } = plain.messages
    const of = { append, range, lastSeq, findByClientMsgNo, get, truncate, summaries, countAfter, personChannelsOf, revise }
    const messages = Object.fromEntries(Object.entries(of).map(([name, method]) => [name, (method as () => void).bind(plain.messages)])) as unknown as MessageStore
    const errors: string[] = []
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock, storage: { ...plain, messages }, replicator: memoryReplicatorHub().replicator() })
    engines.push(engine)
    engine.on('error', ({ code }) => errors.push(code))
    await engine.start()
    await engine.channels.create(TEAM, { subscribers: ['ann'] })
    await engine.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo: 'gone', expireSec: 1, payload: bytes('x') })
    await clock.advance(200_000)
    expect([errors, plain.messages.lastSeq(TEAM)]).toEqual([[], 1])
    expect(await engine.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo: 'gone', payload: bytes('x') })).toMatchObject({ messageSeq: 1 })
    expect(one.state).toBe('running')
  })
})

describe('what one node writes', () => {
  it('channels, members, roles and flags: holds on the other for the next SEND', async () => {
    const { one, two, clock } = await pair()
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    expect(await bob.send({ ...TEAM, payload: 'in' })).toMatchObject({ reasonCode: ReasonCode.Success })
    await one.channels.subscribers.remove(TEAM, ['bob'])
    await clock.settle()
    expect(await bob.send({ ...TEAM, payload: 'out' })).toMatchObject({ reasonCode: ReasonCode.SubscriberNotExist })
    await two.channels.subscribers.add(TEAM, [{ uid: 'bob', role: MemberRole.Admin }])
    await one.channels.setMode(TEAM, 'muted')
    await clock.settle()
    expect(await bob.send({ ...TEAM, payload: 'admin' })).toMatchObject({ reasonCode: ReasonCode.Success })
    await one.users.setSendBan('bob', true)
    await clock.settle()
    expect((await bob.send({ ...TEAM, payload: 'banned' })).reasonCode).toBe(ReasonCode.SendBan)
    for (const engine of [one, two]) {
      expect((await engine.channels.get(TEAM))?.mode).toBe('muted')
      expect((await engine.channels.subscribers.get(TEAM, 'bob'))?.role).toBe(MemberRole.Admin)
    }
  })

  it('thousands of members, who fit no single entry: are all there, on both, and each is pushed to', async () => {
    const sizes: number[] = []
    const made = cluster()
    const two = await made.node(2)
    const inner = made.hub.replicator()
    const one = await made.node(1, {
      replicator: {
        start: (host) => inner.start(host),
        close: () => inner.close(),
        propose: (key, messages, signal) => inner.propose(key, messages, signal),
        operate: (lane, operation, signal) => (sizes.push(operation.length), inner.operate!(lane, operation, signal)),
      },
    })
    const { clock } = made
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob', 'cat'] })
    const crowd = Array.from({ length: 1_001 }, (_, n) => `u${n}`)
    await one.channels.subscribers.add(TEAM, [...crowd, ...Array.from({ length: 999 }, (_, n) => `${'\u{1F600}'.repeat(50)}${n}`)])
    await clock.settle()
    expect(Math.max(...sizes)).toBeLessThan(128 * 1024)
    expect(Math.max(...sizes)).toBeGreaterThan(32 * 1024)
    const { client: last } = await connectTestClient(two, { uid: 'u1000' })
    await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('all') })
    expect((await last.nextRecv()).text).toBe('all')
    const listed = await two.channels.subscribers.list(TEAM, { limit: 5_000 })
    expect(listed.items).toHaveLength(2_003)
  })

  it('the end of a membership: is known to a replay on the other as soon as it is there, whenever the positions go', async () => {
    const made = cluster()
    const [asking, forgetting] = [deferred(), deferred()]
    const base = memoryStorage()
    made.storages[2] = storageWith(base, { summaries: (uid, keys) => asking.promise.then(() => base.messages.summaries(uid, keys)) })
    const two = await made.node(2)
    const inner = made.hub.replicator()
    let holds = false
    const one = await made.node(1, {
      replicator: {
        start: (host) => inner.start(host),
        close: () => inner.close(),
        propose: (key, messages, signal) => inner.propose(key, messages, signal),
        operate: async (lane, operation, signal) => {
          if (holds && Buffer.from(operation).includes('"cursors","remove"')) await forgetting.promise
          return inner.operate!(lane, operation, signal)
        },
      },
    })
    const { clock } = made
    const say = (text: string): Promise<unknown> => one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes(text) })
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    await say('before')
    await clock.settle()
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    await clock.settle()
    holds = true
    const removing = one.channels.subscribers.remove(TEAM, ['bob'])
    await clock.settle()
    await say('bob is gone')
    await clock.settle()
    expect(await two.channels.lastSeq(TEAM)).toBe(2)
    asking.resolve()
    await clock.settle()
    forgetting.resolve()
    await removing
    await clock.settle()
    expect(bob.messages.map(({ text }) => text)).not.toContain('bob is gone')
  })

  it('a new member: gets pushes from the other node, which knew the members before, and whose directory takes its time', async () => {
    const made = cluster()
    const slow = (made.storages[2] = memoryStorage())
    const { channels } = slow
    const later = <A extends unknown[], R>(ask: (...args: A) => R) => async (...args: A) => ask(...args)
    Object.assign(slow, {
      channels: new Proxy(channels, {
        get: (target, name) => {
          const member: unknown = Reflect.get(target, name)
          return typeof member === 'function' && name !== 'changeCount' ? later(member.bind(target) as (...args: unknown[]) => unknown) : undefined
        },
      }),
    })
    const [one, two] = [await made.node(1), await made.node(2)]
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    await made.clock.settle()
    const [{ client: bob }, { client: cat }] = [await connectTestClient(two, { uid: 'bob' }), await connectTestClient(two, { uid: 'cat' })]
    expect((await cat.send({ ...TEAM, payload: 'too early' })).reasonCode).toBe(ReasonCode.SubscriberNotExist)
    await two.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('before') })
    expect((await bob.nextRecv()).text).toBe('before')
    await one.channels.subscribers.add(TEAM, ['cat'])
    await made.clock.settle()
    expect((await cat.send({ ...TEAM, payload: 'in' })).reasonCode).toBe(ReasonCode.Success)
    await two.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('after') })
    expect((await cat.nextRecv()).text).toBe('after')
  })

  it('a token: lets its user in at the other, and its removal keeps them out', async () => {
    const made = cluster()
    const nodes: IMEngine[] = []
    for (const nodeID of [1, 2]) {
      const storage = (made.storages[nodeID] = memoryStorage())
      nodes.push(await made.node(nodeID, { tokenVerifier: staticTokenVerifier(storage.tokens) }))
    }
    const [one, two] = nodes as [IMEngine, IMEngine]
    await one.users.setToken('ann', { deviceFlag: 0, token: 'secret' })
    await made.clock.settle()
    expect((await connectTestClient(two, { uid: 'ann', token: 'secret' })).connack.reasonCode).toBe(ReasonCode.Success)
    await two.users.removeToken('ann', 0)
    await made.clock.settle()
    await expect(connectTestClient(one, { uid: 'ann', token: 'secret' })).rejects.toThrow('AuthFail')
  })

  it('an edit and a recall: are in both histories alike, and told to the connections of both', async () => {
    const { one, two, clock } = await pair()
    const clients = [(await connectTestClient(one, { uid: 'ann' })).client, (await connectTestClient(two, { uid: 'bob' })).client]
    const revised: string[] = []
    for (const engine of [one, two]) engine.on('messageRevised', ({ message }) => revised.push(`${engine.nodeID} ${message.revision?.kind}`))
    const { messageID } = await one.messages.send({ ...TEAM, fromUID: 'cat', payload: bytes('first') })
    const gone = await one.messages.send({ ...TEAM, fromUID: 'cat', payload: bytes('oops') })
    await clock.settle()
    expect((await two.messages.edit(messageID, bytes('second'), { byUID: 'cat' })).revision?.version).toBe(1)
    await one.messages.recall(gone.messageID)
    await clock.settle()
    for (const engine of [one, two]) expect(await texts(engine)).toEqual(['second (edited 1)', ' (recalled 1)'])
    for (const client of clients) expect(eventsOf(client)).toEqual(['message.edited', 'message.recalled'])
    expect(revised.toSorted()).toEqual(['1 edited', '1 recalled', '2 edited', '2 recalled'])
    await expect(two.messages.edit(gone.messageID, bytes('back'))).rejects.toMatchObject({ code: 'IM_MESSAGE_NOT_FOUND' })
  })

  it('a message deleted for one user: is hidden from them on both, and told to their devices on both', async () => {
    const { one, two, clock } = await pair()
    const phone = (await connectTestClient(one, { uid: 'bob', deviceID: 'phone' })).client
    const browser = (await connectTestClient(two, { uid: 'bob', deviceID: 'browser', deviceFlag: 1 })).client
    const { messageID } = await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('x') })
    await clock.settle()
    await two.messages.deleteFor('bob', [messageID])
    await clock.settle()
    for (const client of [phone, browser]) expect(eventsOf(client)).toEqual(['message.deleted'])
    for (const engine of [one, two]) {
      const seen = []
      for await (const message of engine.messages.range(TEAM, { forUID: 'bob' })) seen.push(message)
      expect(seen).toEqual([])
    }
  })

  it('the end of a channel with its messages: leaves nothing on either, and numbers go on', async () => {
    const { one, two, clock } = await pair()
    await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('x') })
    await clock.settle()
    await two.channels.delete(TEAM, { messages: true })
    await clock.settle()
    for (const engine of [one, two]) expect([await texts(engine), await engine.channels.get(TEAM)]).toEqual([[], undefined])
    await two.channels.create(TEAM, { subscribers: ['ann'] })
    expect((await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('y') })).messageSeq).toBe(2)
  })

  it('what no storage takes: is the caller’s TypeError, and the log goes on', async () => {
    const made = cluster()
    const [one, two] = [await made.node(1), await made.node(2)]
    const inner = made.storages[2]!.channels
    Object.assign(inner, { putChannel: () => { throw new TypeError('not like this') } })
    await expect(two.channels.create(TEAM)).rejects.toThrow('not like this')
    await one.users.setSendBan('ann', true)
    await made.clock.settle()
    expect((await two.users.flags('ann')).sendBanned).toBe(true)
  })
})

/** A node that applies no operation of the log from `lag` on, until `catchUp`. */
async function lagging(made: Cluster, nodeID: number, options: Partial<IMEngineOptions> = {}) {
  const inner = made.hub.replicator()
  let gate = Promise.resolve()
  let open = (): void => undefined
  const engine = await made.node(nodeID, {
    ...options,
    replicator: {
      start: (host) => inner.start({ ...host, operate: (operation) => gate.then(() => host.operate(operation)) }),
      close: () => (open(), inner.close()),
      propose: (key, messages, signal) => inner.propose(key, messages, signal),
      operate: (lane, operation, signal) => inner.operate!(lane, operation, signal),
    },
  })
  return {
    engine,
    lag: () => {
      gate = new Promise((resolve) => (open = resolve))
    },
    catchUp: async () => {
      open()
      await made.clock.settle()
    },
  }
}

describe('a user who is sent away on one node, and comes back to another that the log has not come to yet', () => {
  const APP = { deviceFlag: DeviceFlag.App, deviceLevel: DeviceLevel.Master }
  const old = { uid: 'ann', deviceFlag: DeviceFlag.App, token: 'old' }

  /** ann has a token, and is connected with it to the second node, which lags from here on. */
  async function connected() {
    const made = cluster()
    const storages = [(made.storages[1] = memoryStorage()), (made.storages[2] = memoryStorage())]
    const one = await made.node(1, { tokenVerifier: staticTokenVerifier(storages[0]!.tokens) })
    const two = await lagging(made, 2, { tokenVerifier: staticTokenVerifier(storages[1]!.tokens) })
    await one.users.setToken('ann', { ...APP, token: 'old' })
    await made.clock.settle()
    const first = await connectTestClient(two.engine, old)
    two.lag()
    return { ...made, one, two, first }
  }

  it.each<[what: string, sendAway: (one: IMEngine) => Promise<unknown>, reason: string]>([
    ['banned', (one) => one.users.ban('ann'), 'banned'],
    ['with a token that was replaced', (one) => one.users.setToken('ann', { ...APP, token: 'new' }), 'a new token was set'],
    ['with tokens that were taken away', (one) => one.users.quitDevice('ann'), 'signed out'],
    ['signed out of that kind of device', (one) => one.users.quitDevice('ann', DeviceFlag.App), 'signed out'],
  ])('%s: is out when it has', async (_what, sendAway, reason) => {
    const { one, two } = await connected()
    await sendAway(one)
    expect(two.engine.connections.count()).toBe(0)
    const back = await connectTestClient(two.engine, old)
    await two.catchUp()
    expect(await back.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: ReasonCode.ConnectKick, reason })
    expect(two.engine.connections.count()).toBe(0)
    await expect(connectTestClient(two.engine, old)).rejects.toThrow('refused')
  })

  it('and is being let in as it comes: is not let in', async () => {
    const made = cluster()
    const asked = deferred<{ ok: true }>()
    const one = await made.node(1)
    const two = await lagging(made, 2, { tokenVerifier: () => asked.promise })
    two.lag()
    await one.users.ban('ann')
    const { pair: socket, client } = openSocket(two.engine)
    void client.connect({ uid: 'ann' }).catch(() => undefined)
    await two.catchUp()
    expect(socket.client.socketEnd).toMatchObject({ by: 'server' })
    asked.resolve({ ok: true })
    await made.clock.settle()
    expect(two.engine.connections.count()).toBe(0)
  })

  it('with the new token: stays, there and on the node that has it already', async () => {
    const { one, two, clock } = await connected()
    await one.users.setToken('ann', { ...APP, token: 'new' })
    const renewed = { ...old, token: 'new', deviceID: 'renewed' }
    const here = await connectTestClient(one, renewed)
    await expect(connectTestClient(two.engine, renewed)).rejects.toThrow('AuthFail')
    await two.catchUp()
    await here.client.ping()
    here.pair.client.end()
    await clock.settle()
    const there = await connectTestClient(two.engine, renewed)
    await clock.advance(10_000)
    await there.client.ping()
  })

  it('stays where the ban was to leave connections alone, or the token was none of a master', async () => {
    const { one, two } = await connected()
    await one.users.ban('ann', { disconnect: false })
    await one.users.unban('ann')
    await one.users.setFlags('ann', { banned: true })
    await one.users.setToken('ann', { deviceFlag: DeviceFlag.App, token: 'slave' })
    await one.users.removeToken('ann')
    await two.catchUp()
    expect(await two.engine.users.flags('ann')).toMatchObject({ banned: true })
    expect(two.engine.connections.count()).toBe(1)
  })

  it('is out when the node that sent them away could tell nobody, and did not hear of it in time itself', async () => {
    const made = cluster({ peerPush: undefined as never })
    const one = await lagging(made, 1)
    const two = await made.node(2)
    for (const engine of [one.engine, two]) await connectTestClient(engine, { uid: 'ann' })
    one.lag()
    const banning = expect(one.engine.users.ban('ann')).rejects.toMatchObject({ code: 'IM_REPLICATION_TIMEOUT' })
    await made.clock.advance(one.engine.limits.replicateTimeoutMs + 200)
    await banning
    await one.catchUp()
    expect([one.engine.connections.count(), two.connections.count()]).toEqual([0, 0])
  })

  it('is counted by the node that sends them away', async () => {
    const { one, two } = await connected()
    await connectTestClient(one, { ...old, deviceFlag: DeviceFlag.App, deviceID: 'here' })
    expect(await one.users.ban('ann')).toEqual({ kickedCount: 1 })
    await two.catchUp()
  })

  it('an entry of those who ended no connections with it: is carried out, and ends none', async () => {
    const made = cluster()
    const one = await made.node(1)
    await connectTestClient(one, { uid: 'ann' })
    const entry = Buffer.from('\u0001["channels","setUserFlags",["ann",{"banned":true}]]')
    const writer = made.hub.replicator()
    await writer.start({ nodeID: 9, apply: () => [], operate: () => undefined, isolated: () => undefined })
    await writer.operate!('users', entry, new AbortController().signal)
    await made.clock.settle()
    expect(await one.users.flags('ann')).toMatchObject({ banned: true })
    expect(one.connections.count()).toBe(1)
    await writer.close()
  })
})

describe('positions', () => {
  it('are shared: what was acknowledged to one node is not replayed by the other, and what was not is', async () => {
    const { one, two, clock } = await pair()
    const first = await connectTestClient(one, { uid: 'bob' })
    await two.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('seen') })
    await first.client.nextRecv()
    await clock.advance(one.limits.cursorFlushMs + 200)
    first.pair.client.end()
    await clock.settle()
    await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('missed') })
    await clock.settle()
    const { client } = await connectTestClient(two, { uid: 'bob' })
    expect((await client.nextRecv()).text).toBe('missed')
    await clock.settle()
    expect(client.messages).toHaveLength(1)
  })

  it('that were acknowledged are written at the end, also when it does not wait for a handler that hangs', async () => {
    const hub = memoryReplicatorHub()
    const [storage, other] = [memoryStorage(), memoryStorage()]
    const node = async (nodeID: number, own: Storage): Promise<IMEngine> => {
      const engine = new IMEngine({ tokenVerifier: allowAnyToken(), nodeID, storage: own, replicator: hub.replicator(), limits: { cursorFlushMs: 60_000 } })
      engines.push(engine)
      await engine.start()
      return engine
    }
    const [one] = [await node(1, storage), await node(2, other)]
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    const { client } = await connectTestClient(one, { uid: 'bob' })
    await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('x') })
    await client.nextRecv()
    const hanging = new Promise<void>((resolve) => one.use('EventOnSend', () => (resolve(), new Promise(() => undefined)), { name: 'hangs' }))
    void client.send({ ...TEAM, payload: 'y' }).catch(() => undefined)
    await hanging // and so the RECVACK before it has come
    await one.close({ drainMs: 0 })
    for (const { cursors } of [storage, other]) expect((await cursors.cursor('bob', TEAM)).deliveredSeq).toBe(1)
    await expect(one.channels.create(TEAM)).rejects.toMatchObject({ code: 'IM_ABORTED' })
  })

  it('of one who was taken out of a channel are forgotten by the node that has their connection', async () => {
    const { one, two, clock, storages } = await pair()
    const { client } = await connectTestClient(two, { uid: 'bob' })
    await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('x') })
    await client.nextRecv()
    await one.channels.subscribers.remove(TEAM, ['bob'])
    await clock.advance(2 * one.limits.cursorFlushMs)
    for (const nodeID of [1, 2]) expect((await storages[nodeID]!.cursors.cursor('bob', TEAM)).deliveredSeq).toBe(0)
  })
})

/**
 * Two nodes over a log in two parts, as the partitions of a stream are: one has TEAM and its members, the other everything else.
 * The second node applies no operation of that other part from `lag` on, until `catchUp`.
 */
async function parted(options: Partial<IMEngineOptions> = {}) {
  const made = cluster(options)
  const { clock } = made
  const rest = memoryReplicatorHub({ clock })
  let gate = Promise.resolve()
  let open = (): void => undefined
  const node = (nodeID: number): Promise<IMEngine> => {
    const parts = { team: made.hub.replicator(), rest: rest.replicator() }
    const partOf = (lane: string) => parts[lane === channelKeyString(TEAM) ? 'team' : 'rest']
    return made.node(nodeID, {
      replicator: {
        start: async (host) => {
          await parts.team.start(host)
          await parts.rest.start({ ...host, operate: async (operation) => (nodeID === 2 && (await gate), host.operate(operation)) })
        },
        close: async () => {
          open()
          await Promise.all([parts.team.close(), parts.rest.close()])
        },
        propose: (key, messages, signal) => partOf(channelKeyString(key)).propose(key, messages, signal),
        operate: (lane, operation, signal) => partOf(lane).operate!(lane, operation, signal),
      },
    })
  }
  const [one, two] = [await node(1), await node(2)]
  await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
  await clock.settle()
  return {
    ...made,
    one,
    two,
    say: (text: string, syncOnce = false): Promise<unknown> => one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes(text), syncOnce }),
    lag: () => {
      gate = new Promise((resolve) => (open = resolve))
    },
    catchUp: async () => {
      open()
      await clock.settle()
    },
  }
}

describe('a node that has come to everything of a channel and to nothing else', () => {
  it('shows a new member nothing of what was said before they came, commands included', async () => {
    const { one, two, say, lag, clock } = await parted()
    await say('before')
    await say('a command from before', true)
    await clock.settle()
    lag()
    await one.channels.subscribers.add(TEAM, ['dan'])
    await clock.settle()
    const { client: dan } = await connectTestClient(two, { uid: 'dan' })
    await clock.settle()
    expect(dan.messages).toEqual([])
    await say('after')
    await clock.settle()
    expect(dan.messages.map(({ text }) => text)).toEqual(['after'])
  })

  it('shows a member who was taken out and in again nothing of what was said in between, then or later', async () => {
    const { one, two, say, lag, catchUp, clock, storages } = await parted()
    await say('before')
    await clock.settle()
    const first = await connectTestClient(two, { uid: 'bob' })
    expect((await first.client.nextRecv()).text).toBe('before')
    await clock.advance(two.limits.cursorFlushMs + 200)
    first.pair.client.end()
    await clock.settle()
    lag()
    await one.channels.subscribers.remove(TEAM, ['bob'])
    await say('in between')
    await one.channels.subscribers.add(TEAM, ['bob'])
    await clock.settle()
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    await clock.settle()
    expect(bob.messages).toEqual([])
    await catchUp()
    for (const nodeID of [1, 2]) expect(await storages[nodeID]!.cursors.cursor('bob', TEAM)).toMatchObject({ deliveredSeq: 2, joinSeq: 3 })
  })

  it('knows a conversation that was read and marked as unread behind that as the other one does, then and later', async () => {
    const { one, say, lag, catchUp, clock, storages } = await parted()
    for (const text of ['one', 'two', 'three']) await say(text)
    await clock.settle()
    lag()
    await one.conversations.markRead('bob', TEAM)
    await one.conversations.setUnread('bob', TEAM, 2)
    await clock.settle()
    const positions = async () => Promise.all([1, 2].map(async (nodeID) => storages[nodeID]!.cursors.cursor('bob', TEAM)))
    const [here, there] = await positions()
    expect(here).toMatchObject({ readSeq: 1 })
    expect(there).toEqual(here)
    await catchUp()
    expect(await positions()).toEqual([here, here])
  })

  it('hides what was deleted for a user there', async () => {
    const { one, two, say, lag, clock } = await parted()
    await say('one')
    await clock.settle()
    lag()
    const [{ messageID } = { messageID: '' }] = (await one.messages.sync(TEAM, { limit: 1 })).messages
    await one.messages.deleteFor('bob', [messageID])
    await clock.settle()
    const seen = []
    for await (const message of two.messages.range(TEAM, { forUID: 'bob' })) seen.push(message)
    expect(seen).toEqual([])
  })
})

describe('a node of the log', () => {
  it('catches up with what was written while it was away', async () => {
    const made = cluster()
    const one = await made.node(1)
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('early') })
    const two = await made.node(2)
    await made.clock.settle()
    expect(await texts(two)).toEqual(['early'])
    expect((await two.channels.subscribers.list(TEAM)).items.map(({ uid }) => uid)).toEqual(['ann', 'bob'])
  })

  it('that does not get rid of what it applies: applies no more than it may hold, and everything in order later', async () => {
    const hub = memoryReplicatorHub()
    const storage = memoryStorage()
    let release = (): void => undefined
    const released = new Promise<void>((resolve) => (release = resolve))
    const { members } = storage.channels
    storage.channels.members = async (key, query) => (await released, members.call(storage.channels, key, query))
    const start = async (nodeID: number, options: Partial<IMEngineOptions>): Promise<IMEngine> => {
      const engine = new IMEngine({ tokenVerifier: allowAnyToken(), nodeID, replicator: hub.replicator(), ...options })
      engines.push(engine)
      await engine.start()
      return engine
    }
    const one = await start(1, {})
    const two = await start(2, { storage, limits: { maxQueuedPerChannel: 20 } })
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    for (let n = 0; n < 200; n++) await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes(`${n}`) })
    await new Promise((resolve) => setImmediate(resolve)) // all that can be applied has been: nothing here waits for a timer
    expect(await storage.messages.lastSeq(TEAM)).toBeLessThanOrEqual(20)
    release()
    const heard: string[] = []
    while (heard.length < 200) heard.push((await bob.nextRecv()).text)
    expect(heard).toEqual(Array.from({ length: 200 }, (_, n) => `${n}`))
  })

  it('reaches the other for what no log has: an unpersisted message', async () => {
    const { one, two, clock } = await pair()
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    await one.messages.send({ ...TEAM, fromUID: 'cat', payload: bytes('typing'), noPersist: true })
    await clock.settle()
    expect([ann, bob].map(({ messages }) => messages.map(({ text }) => text))).toEqual([['typing'], ['typing']])
  })

  it('that has proposed a message says who is connected nowhere, and only that one does', async () => {
    const { one, two, clock } = await pair()
    await connectTestClient(one, { uid: 'ann' })
    await connectTestClient(two, { uid: 'bob' })
    const offline: unknown[] = []
    for (const engine of [one, two]) engine.on('offlineMessage', ({ uids }) => offline.push([engine.nodeID, uids]))
    await two.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('x') })
    await clock.settle()
    expect(offline).toEqual([[2, ['cat']]])
  })

  it('that has proposed a message tells the webhook, and only that one does', async () => {
    const told: string[] = []
    const hook = (name: string): Webhook => ({
      events: ['msg.notify'],
      notify: async (events) => {
        for (const event of events) if (event.event === 'msg.notify') told.push(...event.messages.map(({ payload }) => `${name} ${Buffer.from(payload).toString()}`))
      },
    })
    const made = cluster()
    const [one, two] = [await made.node(1, { webhook: hook('one') }), await made.node(2, { webhook: hook('two') })]
    await one.channels.create(TEAM, { subscribers: ['ann'] })
    const { client } = await connectTestClient(two, { uid: 'ann' })
    expect((await client.send({ ...TEAM, payload: 'hi' })).reasonCode).toBe(ReasonCode.Success)
    await one.messages.send({ ...TEAM, fromUID: 'ann', payload: bytes('ho') })
    await made.clock.advance(5_000)
    expect(told.toSorted()).toEqual(['one ho', 'two hi'])
  })

  it.each<[string, Uint8Array, string]>([
    ['of a later format', Buffer.of(9, 91, 93), 'IM_LOG_FORMAT'],
    ['that is damaged', Buffer.of(1, 91, 92), 'IM_LOG_CORRUPT'],
    ['that is no list', Buffer.from('\u0001{"part":"channels"}'), 'IM_LOG_CORRUPT'],
    ['of an unknown method', Buffer.from('\u0001["channels","toString",[]]'), 'IM_LOG_FORMAT'],
    ['of an unknown part', Buffer.from('\u0001["constructor","name",[]]'), 'IM_LOG_FORMAT'],
    ['without arguments', Buffer.from('\u0001["channels","putChannel"]'), 'IM_LOG_FORMAT'],
  ])('does not leave out a write %s', async (_name, operation, code) => {
    let host: ReplicatorHost | undefined
    const hub = memoryReplicatorHub()
    const inner = hub.replicator()
    const engine = new IMEngine({
      tokenVerifier: allowAnyToken(),
      replicator: {
        start: (given) => inner.start((host = given)),
        close: () => inner.close(),
        propose: (key, messages, signal) => inner.propose(key, messages, signal),
        operate: (lane, bytesOf, signal) => inner.operate!(lane, bytesOf, signal),
      },
    })
    engines.push(engine)
    await engine.start()
    await expect((async () => host!.operate(operation))()).rejects.toMatchObject({ code })
  })
})

it('a write that is not committed in time rejects with IM_REPLICATION_TIMEOUT', async () => {
  const clock = new FakeClock()
  const inner = memoryReplicatorHub({ clock }).replicator()
  const engine = new IMEngine({
    tokenVerifier: allowAnyToken(), clock, random: seededRandom(1),
    replicator: {
      start: (host) => inner.start(host),
      close: () => inner.close(),
      propose: (key, messages, signal) => inner.propose(key, messages, signal),
      operate: () => new Promise(() => undefined),
    },
  })
  engines.push(engine)
  await engine.start()
  const creating = engine.channels.create({ channelID: 'g', channelType: ChannelType.Group })
  const outcome = expect(creating).rejects.toMatchObject({ code: 'IM_REPLICATION_TIMEOUT' })
  await clock.advance(engine.limits.replicateTimeoutMs + 200)
  await outcome
})

describe('a node that has lost the others', () => {
  async function lonely(options: Partial<IMEngineOptions> = {}) {
    const clock = new FakeClock()
    let host: ReplicatorHost | undefined
    const inner = memoryReplicatorHub({ clock }).replicator()
    const engine = new IMEngine({
      tokenVerifier: allowAnyToken(), clock, random: seededRandom(1), ...options,
      replicator: {
        start: (given) => inner.start((host = given)),
        close: () => inner.close(),
        propose: (key, messages, signal) => inner.propose(key, messages, signal),
      },
    })
    engines.push(engine)
    await engine.start()
    const told: boolean[] = []
    engine.on('isolated', ({ isIsolated }) => told.push(isIsolated))
    return { engine, clock, told, isolate: (isIsolated: boolean) => host!.isolated(isIsolated) }
  }

  it('closes its connections and takes no new ones, until it has them again', async () => {
    const { engine, clock, told, isolate } = await lonely()
    await connectTestClient(engine, { uid: 'ann' })
    const causes: string[] = []
    engine.on('disconnected', ({ cause }) => causes.push(cause))
    const refusals: unknown[] = []
    engine.on('connectionRefused', ({ detail }) => refusals.push(detail))
    isolate(true)
    isolate(true)
    await clock.advance(engine.limits.closeTimeoutMs + 200)
    expect([causes, engine.connections.count()]).toEqual([['isolated'], 0])
    await expect(connectTestClient(engine, { uid: 'bob' })).rejects.toThrow()
    expect(refusals).toEqual(['this node has lost the others'])
    isolate(false)
    expect((await connectTestClient(engine, { uid: 'bob' })).connack.reasonCode).toBe(ReasonCode.Success)
    expect(told).toEqual([true, false])
  })

  it("keeps them with whenIsolated: 'keep', and says so", async () => {
    const { engine, clock, told, isolate } = await lonely({ whenIsolated: 'keep' })
    await connectTestClient(engine, { uid: 'ann' })
    isolate(true)
    await clock.settle()
    await connectTestClient(engine, { uid: 'bob' })
    expect([engine.connections.count(), told]).toEqual([2, [true]])
  })
})
