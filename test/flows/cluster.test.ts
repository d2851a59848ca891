import { afterEach, describe, expect, it } from 'vitest'
import {
  allowAnyToken, ChannelType, DeviceLevel, IMEngine, memoryPeerHub, memoryPresence, memoryReplicatorHub, memoryStorage, ReasonCode,
  type IMEngineOptions, type PeerPush, type PeerPushHost, type Presence, type Replicator,
} from 'imengine'
import { FrameType } from 'imengine/protocol'
import { connectTestClient, FakeClock, seededRandom } from 'imengine/testing'
import { deferred, TEAM } from '../support.ts'

const engines: IMEngine[] = []
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close({ drainMs: 0 })))
})

async function node(nodeID: number, options: Partial<IMEngineOptions>): Promise<IMEngine> {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), nodeID, random: seededRandom(nodeID), ...options })
  engines.push(engine)
  await engine.start()
  return engine
}

/** Two nodes over one store: presence says who is where, pushes go from node to node. */
async function pair(options: Partial<IMEngineOptions> = {}, wrap: (peer: PeerPush) => PeerPush = (peer) => peer) {
  const clock = new FakeClock()
  const storage = memoryStorage()
  const presence = memoryPresence({ nowMs: () => clock.monotonicMs() })
  const hub = memoryPeerHub()
  const shared = { clock, storage, presence, ...options }
  const one = await node(1, { ...shared, peerPush: wrap(hub.peer()) })
  const two = await node(2, { ...shared, peerPush: wrap(hub.peer()) })
  await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
  return { one, two, clock, presence }
}

describe('two nodes over one store', () => {
  it('deliver to each other’s connections, in order, to all devices but the sending one', async () => {
    const { one, two, clock } = await pair()
    const { client: annHere } = await connectTestClient(one, { uid: 'ann', deviceID: 'a' })
    const { client: annThere } = await connectTestClient(two, { uid: 'ann', deviceID: 'b' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    for (let count = 0; count < 20; count++) await annHere.send({ ...TEAM, payload: String(count) })
    await clock.settle()
    const all = Array.from({ length: 20 }, (_, index) => index + 1)
    expect(bob.messages.map((message) => message.messageSeq)).toEqual(all)
    expect(annThere.messages.map((message) => message.messageSeq)).toEqual(all)
    expect(annHere.messages).toEqual([])
  })

  it('repeat a push that was not confirmed, and tell undelivered when the peer stays away', async () => {
    let failures = 2
    const { one, two, clock } = await pair({}, (peer) => ({
      start: (host) => peer.start(host),
      kick: (request, signal) => peer.kick(request, signal),
      close: () => peer.close(),
      push: (nodeID, request, signal) => (failures-- > 0 ? Promise.reject(new Error('lost')) : peer.push(nodeID, request, signal)),
    }))
    const undelivered: unknown[] = []
    one.on('undelivered', ({ nodeID, messages }) => undelivered.push([nodeID, messages[0]?.messageSeq]))
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    await ann.send({ ...TEAM, payload: 'one' })
    await clock.advance(1_000)
    expect(bob.messages.map((message) => message.text)).toEqual(['one'])
    failures = Number.POSITIVE_INFINITY
    expect(await ann.send({ ...TEAM, payload: 'two' })).toMatchObject({ reasonCode: 1 })
    await clock.advance(6_000)
    expect(undelivered).toEqual([[2, 2]])
  })

  it('send a user who comes and goes between them nothing that was acknowledged on either', async () => {
    const { one, two, clock } = await pair()
    const got: string[][] = []
    for (const [index, engine] of [one, two, one, two].entries()) {
      const { client } = await connectTestClient(engine, { uid: 'bob' })
      await one.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(String(index + 1)) })
      await clock.settle()
      client.end()
      await clock.advance(one.limits.cursorFlushMs)
      got.push(client.messages.map(({ text }) => text))
    }
    expect(got).toEqual([['1'], ['2'], ['3'], ['4']])
  })

  it('send who has joined again what the other one stored, in its place, also when its push comes behind the replay', async () => {
    const [replaying, pushing] = [deferred(), deferred()]
    const storage = memoryStorage()
    const hidden = storage.cursors.hidden.bind(storage.cursors)
    storage.cursors.hidden = (...query) => replaying.promise.then(() => hidden(...query))
    const { one, two, clock } = await pair({ storage }, (peer) => ({
      start: (host) => peer.start(host),
      kick: (request, signal) => peer.kick(request, signal),
      close: () => peer.close(),
      push: (nodeID, request, signal) => pushing.promise.then(() => peer.push(nodeID, request, signal)),
    }))
    const say = async (engine: IMEngine, text: string, key = TEAM): Promise<void> => {
      await engine.messages.send({ ...key, fromUID: 'ann', payload: Buffer.from(text) })
      await clock.settle()
    }
    const other = { channelID: 'other', channelType: ChannelType.Group }
    await one.channels.create(other, { subscribers: ['bob'] })
    await say(one, 'missed', other)
    const { client: desk } = await connectTestClient(one, { uid: 'bob' })
    await clock.settle()
    await one.channels.subscribers.remove(TEAM, ['bob'])
    await say(one, 'without bob')
    await one.channels.subscribers.add(TEAM, ['bob'])
    await say(two, 'first')
    await say(one, 'second')
    replaying.resolve()
    await clock.settle()
    pushing.resolve()
    await clock.settle()
    await say(one, 'third')
    expect(desk.messages.map(({ text }) => text)).toEqual(['missed', 'first', 'second', 'third'])
  })

  it('end an older master login on the other node, and not a login of another kind of device', async () => {
    const { one, two, clock } = await pair({ tokenVerifier: allowAnyToken({ deviceLevel: DeviceLevel.Master }) })
    const old = await connectTestClient(one, { uid: 'ann', deviceID: 'a', deviceFlag: 0 })
    await connectTestClient(one, { uid: 'ann', deviceID: 'w', deviceFlag: 1 })
    await connectTestClient(two, { uid: 'ann', deviceID: 'b', deviceFlag: 0 })
    expect(await old.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: 12 })
    await clock.settle()
    expect(one.connections.list().map(({ deviceID }) => deviceID)).toEqual(['w'])
    expect(two.connections.list().map(({ deviceID }) => deviceID)).toEqual(['b'])
    await clock.advance(3_000)
  })

  it('send a user away together who is banned or signed out on one of them', async () => {
    const { one, two, clock } = await pair()
    const phone = await connectTestClient(two, { uid: 'ann', deviceID: 'a', deviceFlag: 0 })
    await connectTestClient(two, { uid: 'ann', deviceID: 'w', deviceFlag: 1 })
    await one.users.quitDevice('ann', 0)
    expect(await phone.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: 12, reason: 'signed out' })
    expect(two.connections.list().map(({ deviceID }) => deviceID)).toEqual(['w'])
    expect(await one.users.ban('ann')).toEqual({ kickedCount: 0 })
    expect(two.connections.list()).toEqual([])
    await clock.advance(3_000)
  })

  it('do not let in again who was banned on the other one, as long as the store is a database that answers later', async () => {
    const storage = memoryStorage()
    const flags = storage.channels.userFlags.bind(storage.channels)
    let askedCount = 0
    Object.assign(storage.channels, { userFlags: async (uid: string) => (askedCount++, flags(uid)), changeCount: undefined })
    const { one, two, clock } = await pair({ storage })
    const { client } = await connectTestClient(two, { uid: 'ann' })
    expect(await client.send({ ...TEAM, payload: 'one question is enough for the login and this' })).toMatchObject({ reasonCode: ReasonCode.Success })
    expect(askedCount).toBe(1)
    await one.users.ban('ann')
    await expect(connectTestClient(two, { uid: 'ann' })).rejects.toThrow('Ban')
    expect(two.connections.list()).toEqual([])
    await clock.advance(3_000)
  })

  it('end for a login that they are told of late who was there before it, and not who has come since', async () => {
    const hosts: PeerPushHost[] = []
    const { two, clock } = await pair({ tokenVerifier: allowAnyToken({ deviceLevel: DeviceLevel.Master }) }, (peer) => ({
      start: (host) => void hosts.push(host),
      push: () => undefined,
      kick: () => undefined,
      close: () => peer.close(),
    }))
    const late = { uid: 'ann', deviceFlag: 0, deviceID: 'elsewhere', deviceLevel: DeviceLevel.Master, nodeID: 3 }
    const old = await connectTestClient(two, { uid: 'ann', deviceID: 'old', deviceFlag: 0 })
    await clock.advance(5_000)
    await hosts[1]!.kicked({ ...late, agoMs: 10_000 })
    await hosts[1]!.kicked({ ...late, agoMs: 10_000, out: { allDevices: true, reason: 'banned' } })
    expect(two.connections.list().map(({ deviceID }) => deviceID)).toEqual(['old'])
    await hosts[1]!.kicked({ ...late, agoMs: 1_000 })
    expect(await old.client.next(FrameType.DISCONNECT)).toMatchObject({ reasonCode: 12 })
    expect(two.connections.list()).toEqual([])
    await connectTestClient(two, { uid: 'ann', deviceID: 'new', deviceFlag: 0 })
    await clock.advance(3_000)
    await hosts[1]!.kicked({ ...late, agoMs: 1_000, out: { allDevices: true, reason: 'banned' } })
    expect(two.connections.list()).toEqual([])
    await clock.advance(3_000)
  })

  it('let a user in although another node cannot be told of the login', async () => {
    const { one, clock } = await pair({}, (peer) => ({
      start: (host) => peer.start(host),
      push: (nodeID, request, signal) => peer.push(nodeID, request, signal),
      close: () => peer.close(),
      kick: () => new Promise(() => undefined),
    }))
    const errors: string[] = []
    one.on('error', (error) => errors.push(error.code))
    const connecting = connectTestClient(one, { uid: 'ann' })
    await clock.advance(one.limits.peerKickTimeoutMs + 200)
    expect((await connecting).connack.reasonCode).toBe(1)
    expect(errors).toEqual(['IM_PEER_UNREACHABLE'])
  })

  it('go on delivering to their own connections when presence does not answer', async () => {
    const presence = memoryPresence()
    let down = false
    const { one } = await pair({
      presence: { ...bindAll(presence), locate: (uids) => (down ? Promise.reject(new Error('down')) : presence.locate(uids)) },
    })
    const errors: string[] = []
    one.on('error', (error) => errors.push(error.code))
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    const { client: bob } = await connectTestClient(one, { uid: 'bob' })
    down = true
    await ann.send({ ...TEAM, payload: 'x' })
    expect((await bob.nextRecv()).text).toBe('x')
    expect(errors).toEqual(['IM_PRESENCE_UNAVAILABLE'])
  })

  it('tell presence of a connection that has gone with the next heartbeat, when it could not be told at once', async () => {
    const presence = memoryPresence()
    let down = false
    const { one, clock } = await pair({
      presence: { ...bindAll(presence), offline: (entry) => (down ? Promise.reject(new Error('down')) : presence.offline(entry)) },
    })
    const { pair: socket } = await connectTestClient(one, { uid: 'ann' })
    down = true
    socket.client.end()
    await clock.settle()
    expect((await presence.locate(['ann'])).size).toBe(1)
    down = false
    await clock.advance(one.limits.presenceHeartbeatMs + 200)
    expect((await presence.locate(['ann'])).size).toBe(0)
  })

  it('find who is connected to one that drains, and push to them, for as long as that takes', async () => {
    const slow = deferred()
    const { one, two, clock, presence } = await pair({ limits: { stepTimeoutMs: 600_000 } })
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    one.use('EventChannelDistribute', () => slow.promise, { name: 'slow' })
    const sent = one.messages.send({ ...TEAM, fromUID: 'x', payload: Buffer.from('slow') })
    await clock.advance(one.limits.presenceHeartbeatMs + one.limits.timerTickMs)
    const offline: string[] = []
    two.on('offlineMessage', ({ uids }) => offline.push(...uids))
    const closing = one.close({ drainMs: 600_000 })
    await clock.advance(4 * one.limits.presenceHeartbeatMs)
    await two.messages.send({ ...TEAM, fromUID: 'bob', payload: Buffer.from('hello') })
    await clock.settle()
    expect(ann.messages.map(({ text }) => text)).toEqual(['hello'])
    expect(offline).toEqual([])
    slow.resolve()
    await Promise.all([sent, closing])
    expect((await presence.locate(['ann'])).size).toBe(0)
  })

  it('refuse a CONNECT with 15 while presence does not answer, and leave nothing behind', async () => {
    const presence = memoryPresence()
    const { one } = await pair({ presence: { ...bindAll(presence), online: () => Promise.reject(new Error('down')) } })
    await expect(connectTestClient(one, { uid: 'ann' })).rejects.toThrow('SystemError')
    expect(one.connections.list()).toEqual([])
    expect((await presence.locate(['ann'])).size).toBe(0)
  })
})

/** Time may also pass all at once, as it does for a process whose machine was suspended or moved. */
class SuspendedClock extends FakeClock {
  #suspendedMs = 0

  suspend(ms: number): void {
    this.#suspendedMs += ms
  }

  override nowMs(): number {
    return super.nowMs() + this.#suspendedMs
  }

  override monotonicMs(): number {
    return super.monotonicMs() + this.#suspendedMs
  }
}

describe('a node that has stood still for so long that presence has forgotten who is connected to it', () => {
  /** Ann and bob are connected; `over` gets the presence that it stands in front of. */
  async function forgotten(over: (presence: Presence) => Partial<Presence>) {
    const clock = new SuspendedClock()
    const presence = memoryPresence({ nowMs: () => clock.monotonicMs() })
    const one = await node(1, { clock, presence: { ...bindAll(presence), ...over(presence) }, limits: { stepTimeoutMs: 600_000 } })
    const errors: string[] = []
    one.on('error', (error) => errors.push(error.code))
    const { presenceHeartbeatMs, timerTickMs } = one.limits
    const beat = (): Promise<void> => clock.advance(presenceHeartbeatMs + timerTickMs)
    await connectTestClient(one, { uid: 'ann' })
    const { pair: bobs } = await connectTestClient(one, { uid: 'bob' })
    await beat()
    return {
      errors,
      beat,
      bobs,
      shown: async () => [...(await presence.locate(['ann', 'bob']))].map(([uid]) => uid),
      standStill: async () => {
        clock.suspend(3 * presenceHeartbeatMs)
        await clock.advance(timerTickMs) // the heartbeat that is long due
      },
    }
  }

  it('announces them again with its next heartbeat', async () => {
    const { shown, standStill, errors } = await forgotten(() => ({}))
    await standStill()
    expect(await shown()).toEqual(['ann', 'bob'])
    expect(errors).toEqual([])
  })

  it('does so with the first heartbeat that is taken, when its connection was lost together with the pause', async () => {
    let failures = 0
    const { shown, standStill, beat, errors } = await forgotten((presence) => ({
      heartbeat: (nodeID, intervalMs) => (failures-- > 0 ? Promise.reject(new Error('lost')) : presence.heartbeat(nodeID, intervalMs)),
    }))
    failures = 2
    await standStill()
    await beat()
    expect(await shown()).toEqual([])
    await beat()
    expect(await shown()).toEqual(['ann', 'bob'])
    expect(errors).toEqual(Array(2).fill('IM_PRESENCE_UNAVAILABLE'))
  })

  it('does so although presence cannot be told of another one who has gone', async () => {
    const { shown, standStill, bobs, errors } = await forgotten(() => ({ offline: () => Promise.reject(new Error('down')) }))
    bobs.client.end()
    await standStill()
    expect(await shown()).toEqual(['ann'])
    expect(new Set(errors)).toEqual(new Set(['IM_PRESENCE_UNAVAILABLE']))
  })

  it('announces all the others although one cannot be announced, and that one with the next heartbeat', async () => {
    let isDown = false
    const { shown, standStill, beat, errors } = await forgotten((presence) => ({
      online: (entry) => (isDown && entry.uid === 'ann' ? Promise.reject(new Error('down')) : presence.online(entry)),
    }))
    isDown = true
    await standStill()
    expect(await shown()).toEqual(['bob'])
    isDown = false
    await beat()
    expect(await shown()).toEqual(['ann', 'bob'])
    expect(errors).toEqual(['IM_PRESENCE_UNAVAILABLE'])
  })

  it('announces everybody once more when it stands still again while it announces them', async () => {
    const gate = deferred()
    let isSlow = false
    const { shown, standStill } = await forgotten((presence) => ({
      online: (entry) => (isSlow && entry.uid === 'bob' ? gate.promise.then(() => presence.online(entry)) : presence.online(entry)),
    }))
    isSlow = true
    await standStill()
    expect(await shown()).toEqual(['ann'])
    await standStill()
    expect(await shown()).toEqual([])
    gate.resolve()
    await new Promise((resolve) => setImmediate(resolve))
    expect(await shown()).toEqual(['ann', 'bob'])
  })

  it('does not show who leaves while they are announced', async () => {
    const gate = deferred()
    let isSlow = false
    const { shown, standStill, beat, bobs } = await forgotten((presence) => ({
      online: (entry) => (isSlow && entry.uid === 'bob' ? gate.promise.then(() => presence.online(entry)) : presence.online(entry)),
    }))
    isSlow = true
    await standStill()
    bobs.client.end()
    await beat()
    gate.resolve() // the announcement comes to presence behind the end of the connection
    await beat()
    expect(await shown()).toEqual(['ann'])
  })
})

describe('two nodes over one log', () => {
  it('number alike whoever proposes, deliver everywhere in log order, and know a repeat on the other node', async () => {
    const log = memoryReplicatorHub()
    const clock = new FakeClock()
    const stores = [memoryStorage(), memoryStorage()]
    const one = await node(1, { clock, storage: stores[0]!, replicator: log.replicator() })
    const two = await node(2, { clock, storage: stores[1]!, replicator: log.replicator() })
    for (const engine of [one, two]) await engine.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    const { client: ann } = await connectTestClient(one, { uid: 'ann' })
    const { client: bob } = await connectTestClient(two, { uid: 'bob' })
    const answers = []
    for (let count = 0; count < 25; count++) {
      answers.push(ann.send({ ...TEAM, payload: `a${count}` }), bob.send({ ...TEAM, payload: `b${count}` }))
    }
    const seqs = (await Promise.all(answers)).map((answer) => answer.messageSeq)
    await clock.settle()
    expect([...seqs].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, index) => index + 1))
    for (const client of [ann, bob]) {
      const received = client.messages.map((message) => message.messageSeq)
      expect(received).toEqual([...received].sort((a, b) => a - b))
      expect(received).toHaveLength(25)
    }
    const read = async (engine: IMEngine): Promise<string[]> => {
      const texts: string[] = []
      for await (const message of engine.messages.range(TEAM)) texts.push(`${message.messageSeq} ${message.messageID} ${Buffer.from(message.payload).toString()}`)
      return texts
    }
    expect(await read(two)).toEqual(await read(one))

    const { client: annThere } = await connectTestClient(two, { uid: 'ann', deviceID: 'other' })
    const repeat = await annThere.send({ ...TEAM, payload: 'a0', clientMsgNo: 'ann-1' })
    expect(repeat).toMatchObject({ reasonCode: 1, messageSeq: (await answers[0]!).messageSeq })
  })

  it('tell the client to try again when nothing is committed in time, and answer the repeat', async () => {
    const clock = new FakeClock()
    const log = memoryReplicatorHub()
    const inner = log.replicator()
    let stuck = true
    const one = await node(1, {
      clock,
      replicator: {
        start: (host) => inner.start(host),
        close: () => inner.close(),
        propose: (key, messages, signal) => (stuck ? new Promise(() => undefined) : inner.propose(key, messages, signal)),
      },
    })
    const { client } = await connectTestClient(one, { uid: 'ann' })
    const message = { channelID: 'bob', channelType: ChannelType.Person, payload: 'x', clientMsgNo: 'n' }
    const answer = client.send(message)
    await clock.advance(one.limits.replicateTimeoutMs + 200)
    expect((await answer).reasonCode).toBe(18)
    stuck = false
    expect(await client.send(message)).toMatchObject({ reasonCode: 1, messageSeq: 1 })
  })
})

describe('a replicator that has messages gather before they are proposed', () => {
  /** How many messages each proposal had, and what the host was told. */
  async function gathering(gather: NonNullable<Replicator['gather']>) {
    const clock = new FakeClock()
    const inner = memoryReplicatorHub().replicator()
    const proposed: number[] = []
    const replicator: Replicator = {
      start: (host) => inner.start(host),
      propose: (key, messages, signal) => {
        proposed.push(messages.length)
        return inner.propose(key, messages, signal)
      },
      gather,
      close: () => inner.close(),
    }
    const engine = await node(1, { clock, replicator })
    const errors: string[] = []
    engine.on('error', (error) => errors.push(error.code))
    const say = (text: string) => engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text) })
    await engine.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    return { engine, clock, proposed, errors, say }
  }

  it('has those that come meanwhile in the same proposal, in their order', async () => {
    const over = deferred()
    const asked: number[] = []
    const { clock, proposed, errors, say } = await gathering((key, count) => {
      expect(key).toEqual(TEAM)
      asked.push(count)
      return asked.length === 1 ? over.promise : undefined
    })
    const sent = [say('1'), say('2')]
    await clock.settle()
    sent.push(say('3'))
    await clock.settle()
    expect([asked, proposed]).toEqual([[2], []])
    over.resolve()
    expect((await Promise.all(sent)).map(({ messageSeq }) => messageSeq)).toEqual([1, 2, 3])
    expect([proposed, errors]).toEqual([[3], []])
    await say('4')
    expect([asked, proposed]).toEqual([[2, 1], [3, 1]])
  })

  it('is not asked for messages that do not go through the log, and not told of them', async () => {
    const asked: [count: number, bytes: number][] = []
    const never = new Promise<void>(() => undefined)
    const { engine, clock } = await gathering((_key, count, bytes) => (asked.push([count, bytes]), never))
    const say = (text: string, noPersist: boolean) => engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(text), noPersist })
    expect(await say('passing', true)).toMatchObject({ messageSeq: 0 })
    expect(asked).toEqual([])
    void Promise.allSettled([say('kept', false), say('passing', true), say('kept', false)])
    await clock.settle()
    expect(asked.map(([count]) => count)).toEqual([2])
    expect(asked[0]![1]).toBeLessThan(2_000)
    await clock.advance(engine.limits.replicateTimeoutMs + 2 * engine.limits.timerTickMs)
  })

  it('is waited for no longer than a proposal is, once for all channels that were told the same', async () => {
    const never = new Promise<void>(() => undefined)
    const { engine, clock, proposed, errors, say } = await gathering(() => never)
    const other = { channelID: 'other', channelType: ChannelType.Group }
    await engine.channels.create(other, { subscribers: ['ann'] })
    const sent = [say('1'), engine.messages.send({ ...other, fromUID: 'ann', payload: Buffer.from('2') })]
    await clock.advance(engine.limits.replicateTimeoutMs - 2 * engine.limits.timerTickMs)
    expect(proposed).toEqual([])
    await clock.advance(4 * engine.limits.timerTickMs)
    expect((await Promise.all(sent)).map(({ messageSeq }) => messageSeq)).toEqual([1, 1])
    expect(errors).toEqual(['IM_ABORTED'])
  })

  it.each([
    ['throws', () => { throw new Error('a defect') }],
    ['rejects', () => Promise.reject(new Error('a defect'))],
    ['answers with what is no promise', () => 7 as unknown as Promise<void>],
  ])('has them at once when it %s, and the host is told', async (_what, gather) => {
    const { proposed, errors, say } = await gathering(gather)
    expect(await say('1')).toMatchObject({ messageSeq: 1 })
    expect([proposed, errors]).toEqual([[1], ['IM_HANDLER_FAILED']])
  })

  it('is not waited for at the end of the engine', async () => {
    const { engine, clock, errors, say } = await gathering(() => new Promise<void>(() => undefined))
    const sent = expect(say('1')).rejects.toMatchObject({ code: 'IM_ABORTED' })
    await clock.settle()
    const closing = engine.close({ drainMs: 0 })
    await clock.advance(engine.limits.replicateTimeoutMs - 2 * engine.limits.timerTickMs)
    await closing
    await sent
    expect(errors).toEqual(['IM_CLOSE_TIMEOUT'])
  })
})

function bindAll<T extends object>(target: T): T {
  return new Proxy(target, {
    get: (object, name) => {
      const member = object[name as keyof T]
      return typeof member === 'function' ? (member.bind(object) as unknown) : member
    },
    ownKeys: (object) => Reflect.ownKeys(Object.getPrototypeOf(object) === Object.prototype ? object : (Object.getPrototypeOf(object) as object)).concat(Reflect.ownKeys(object)),
    getOwnPropertyDescriptor: (object, name) => ({ configurable: true, enumerable: name !== 'constructor', value: object[name as keyof T] }),
  })
}

describe('a presence that has to be started', () => {
  const calls: string[] = []
  const watched = (over: Partial<Presence> = {}): Presence => ({
    ...bindAll(memoryPresence()),
    start: ({ nodeID, intervalMs }) => void calls.push(`start ${nodeID} ${intervalMs}`),
    leave: (nodeID) => void calls.push(`leave ${nodeID}`),
    close: () => void calls.push('close'),
    ...over,
  })

  it('is started before everything else is asked of it, with the interval of its heartbeats, and closed last', async () => {
    calls.length = 0
    const engine = await node(7, { presence: watched(), limits: { presenceHeartbeatMs: 1_234 } })
    await connectTestClient(engine, { uid: 'ann' })
    await engine.close({ drainMs: 0 })
    expect(calls).toEqual(['start 7 1234', 'leave 7', 'leave 7', 'close'])
  })

  it('keeps the engine from starting when it cannot, and is closed', async () => {
    calls.length = 0
    await expect(node(7, { presence: watched({ start: () => Promise.reject(new Error('down')) }) })).rejects.toThrow('down')
    expect(calls).toEqual(['close'])
  })
})

describe('a start that is refused because another node that runs has its nodeID', () => {
  it('does no harm to that node, neither when it is refused nor when it closes', async () => {
    const { clock, storage, presence, hub } = { clock: new FakeClock(), storage: memoryStorage(), presence: memoryPresence({ nowMs: () => 0 }), hub: memoryPeerHub() }
    const left: number[] = []
    const started: string[] = []
    const watched = { ...bindAll(presence), leave: (nodeID: number) => (left.push(nodeID), presence.leave(nodeID)) }
    const one = await node(1, { clock, storage, presence: watched, peerPush: hub.peer() })
    await connectTestClient(one, { uid: 'ann' })
    left.length = 0
    const replicator = { start: () => void started.push('replicator'), propose: () => [], close: () => undefined }
    await expect(node(1, { clock, presence: watched, replicator, peerPush: hub.peer() })).rejects.toThrow(TypeError)
    await engines.at(-1)!.close()
    expect([...(await presence.locate(['ann']))]).toEqual([['ann', [1]]])
    expect([left, started]).toEqual([[], []])
  })
})

describe('a node that is starting', () => {
  it('turns down pushes until it runs, so that the other one tries again, and is no obstacle to logins there', async () => {
    const [clock, hub, logging] = [new FakeClock(), memoryPeerHub(), deferred()]
    const storage = memoryStorage()
    const presence = memoryPresence({ nowMs: () => clock.monotonicMs() })
    const peer = hub.peer()
    const outcomes: string[] = []
    const one = await node(1, {
      clock, storage, presence,
      peerPush: {
        start: (host) => peer.start(host),
        kick: (request, signal) => peer.kick(request, signal),
        close: () => peer.close(),
        push: async (nodeID, request, signal) => {
          try {
            await peer.push(nodeID, request, signal)
            outcomes.push('taken')
          } catch (error) {
            outcomes.push('refused')
            throw error
          }
        },
      },
    })
    await one.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
    const replicator = { start: () => logging.promise, propose: () => [], close: () => undefined }
    const starting = node(2, { clock, presence, replicator, peerPush: hub.peer() })
    await clock.settle()
    const { client: ann } = await connectTestClient(one, { uid: 'ann' }) // and asks the other one for kicks
    await presence.online({ uid: 'bob', nodeID: 2, connectionID: '1', deviceFlag: 0, deviceLevel: 0 }) // what is not true yet
    await ann.send({ ...TEAM, payload: 'hello' })
    await clock.settle()
    expect(outcomes).toEqual(['refused'])
    logging.resolve()
    await starting
    await clock.advance(1_000)
    expect(outcomes).toEqual(['refused', 'taken'])
  })
})
