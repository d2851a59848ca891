import { ChannelType, memoryPresence, memoryReplicatorHub, memoryStorage, personChannelID, ReasonCode, type PeerPush, type Replicator } from 'imengine'
import { FakeClock } from 'imengine/testing'
import { describe, expect, test } from 'vitest'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

/** Counts who asks for the time of day. */
class CountingClock extends FakeClock {
  readCount = 0

  override nowMs(): number {
    this.readCount++
    return super.nowMs()
  }
}

const TRACED = { tracedMessages: 1_000 }

const text = (payload: string) => ({ ...TEAM, payload })

describe('explain', () => {
  test('says what this node knows of a channel, and who of its members is connected here', async () => {
    const storage = memoryStorage()
    const { engine, connect, clock } = await stage({ storage })
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    await ann.send(text('two'))
    await engine.channels.update(TEAM, { sendBan: true })
    await storage.channels.putMembers(TEAM, [{ uid: 'cat', role: 0, mutedUntilMs: clock.nowMs() + 1_000 }])
    expect(await engine.explain(TEAM)).toEqual({
      key: TEAM,
      exists: true,
      info: { ...TEAM, ban: false, disband: false, sendBan: true, allowStranger: false, mode: 'normal' },
      denyListIsEmpty: true,
      allowListIsEmpty: true,
      lastSeq: 2,
      floorSeq: 0,
      lastTimestampMs: clock.nowMs(),
      members: { count: 3, isComplete: true, mutedCount: 1, onlineHereCount: 1, onlineHere: ['ann'] },
      waiting: { channel: 0, handOver: 0, pusher: 0 },
      recentCount: 0,
      log: undefined,
      failed: [],
    })
  })

  test('says of a channel that nobody has created that there is none', async () => {
    const { engine } = await stage()
    expect(await engine.explain({ channelID: 'nowhere', channelType: 2 })).toMatchObject({ exists: false, lastSeq: 0, members: { count: 0 }, failed: [] })
  })

  test('knows both ends of a person channel', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'hello' })
    expect(await engine.explain({ channelID: personChannelID('ann', 'bob'), channelType: ChannelType.Person })).toMatchObject({
      exists: true, lastSeq: 1, members: { count: 2, onlineHere: ['ann'] },
    })
  })

  test('counts no more members than one call may name, and says so', async () => {
    const { engine } = await stage({ limits: { maxMembersPerCall: 3 } })
    await engine.channels.subscribers.add(TEAM, ['dan'])
    expect((await engine.explain(TEAM)).members).toMatchObject({ count: 3, isComplete: false })
  })

  test('says what waits, and how many answers are kept for repeats', async () => {
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect } = await stage({
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
    })
    const { client: ann } = await connect('ann')
    const sent = [ann.send(text('one')), ann.send({ ...text('elsewhere'), channelID: 'bob', channelType: ChannelType.Person }), ann.send(text('two'))]
    await ann.ping()
    expect(await engine.explain(TEAM)).toMatchObject({ waiting: { channel: 2, handOver: 0, pusher: 0 }, recentCount: 0 })
    held.resolve()
    await Promise.all(sent)
    expect(await engine.explain(TEAM)).toMatchObject({ waiting: { channel: 0 }, recentCount: 2 })
  })

  test('names the log, when the replicator says which', async () => {
    const inner = memoryReplicatorHub().replicator()
    const replicator: Replicator = {
      start: (host) => inner.start(host),
      propose: (key, messages, signal) => inner.propose(key, messages, signal),
      close: () => inner.close(),
      logOf: ({ channelID }) => `log of ${channelID}`,
    }
    const { engine } = await stage({ replicator })
    expect((await engine.explain(TEAM)).log).toBe('log of team')
  })

  test('waits for no answer longer than a step would, and names what it has not found out', async () => {
    const storage = memoryStorage()
    const { engine, clock } = await stage({
      storage: storageWith(storage, { summaries: () => new Promise<never>(() => undefined) }),
      limits: { stepTimeoutMs: 1_000 },
    })
    const explaining = engine.explain(TEAM)
    await clock.advance(1_100)
    const { lastSeq, exists, failed } = await explaining
    expect({ lastSeq, exists, failed }).toEqual({ lastSeq: undefined, exists: true, failed: [{ ask: 'summary', code: 'IM_ABORTED' }] })
  })

  test('takes no name that is none', async () => {
    const { engine } = await stage()
    await expect(engine.explain({ channelID: '', channelType: 2 })).rejects.toThrow('imengine: channelID must be')
  })
})

describe('trace', () => {
  test('says which steps a message has passed, and how many have got and acknowledged it', async () => {
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect, clock } = await stage({
      limits: TRACED,
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
    })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const { client: cat } = await connect('cat', { autoAck: false, plaintext: false })
    const start = clock.nowMs()
    const sent = ann.send({ ...text('one'), clientMsgNo: 'a-1' })
    await ann.ping()
    await clock.advance(20)
    held.resolve()
    const { messageID } = await sent
    const received = await bob.nextRecv()
    await cat.nextRecv()
    await bob.ping()
    expect(engine.trace(messageID)).toEqual({
      messageID,
      key: TEAM,
      fromUID: 'ann',
      clientMsgNo: 'a-1',
      connectionID: '1',
      reason: 'Success',
      messageSeq: 1,
      repeatOf: undefined,
      steps: [
        { step: 'accepted', atMs: start }, { step: 'stored', atMs: start + 20 }, { step: 'pushed', atMs: start + 20 }, { step: 'acknowledged', atMs: start + 20 },
      ],
      pushedCount: 2,
      nodeCount: 0,
      acknowledgedCount: 1,
    })
    cat.ack(received)
    await cat.ping()
    expect(engine.trace(messageID)?.acknowledgedCount).toBe(2)
    expect(Object.isFrozen(engine.trace(messageID))).toBe(true)
  })

  test('counts connections that talk plain as others', async () => {
    const { engine, connect } = await stage({ plaintext: 'allow', limits: TRACED })
    const { client: ann } = await connect('ann', { plaintext: true })
    const { client: bob } = await connect('bob', { plaintext: true })
    const { messageID } = await ann.send(text('one'))
    await bob.nextRecv()
    await bob.ping()
    expect(engine.trace(messageID)).toMatchObject({ pushedCount: 1, acknowledgedCount: 1 })
  })

  test('has acknowledgements, too, where a handler of the host sees them', async () => {
    const { engine, connect } = await stage({ limits: TRACED })
    engine.use('EventRecvAck', function see() {})
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const { messageID } = await ann.send(text('one'))
    await bob.nextRecv()
    await bob.ping()
    expect(engine.trace(messageID)).toMatchObject({ acknowledgedCount: 1 })
  })

  test('counts a connection once, however often it acknowledges, where a handler of the host keeps the message unsettled', async () => {
    const { engine, connect, clock } = await stage({ limits: { ...TRACED, redeliverAfterMs: 1_000, maxRedeliveries: 2 } })
    engine.replace('EventRecvAck', 'settleRecv', function keep() {})
    const { client: ann } = await connect('ann')
    const [{ client: bob }, { client: cat }] = [await connect('bob', { autoAck: false }), await connect('cat', { autoAck: false })]
    const { messageID } = await ann.send(text('one'))
    const received = await bob.nextRecv()
    for (let count = 0; count < 3; count++) bob.ack(received) // in one turn
    await bob.ping()
    await clock.advance(1_100)
    bob.ack(await bob.nextRecv()) // it has been sent again
    await bob.ping()
    expect(engine.metrics().messages.redeliveredCount).toBe(2)
    expect(engine.trace(messageID)).toMatchObject({ pushedCount: 2, acknowledgedCount: 1 })
    cat.ack(received)
    await cat.ping()
    expect(engine.trace(messageID)).toMatchObject({ acknowledgedCount: 2 })
  })

  test('of a message that was refused on its way has the reason', async () => {
    const { engine, connect } = await stage({ limits: TRACED })
    let messageID = ''
    engine.use('EventChannelDistribute', function judge(ctx) {
      messageID = ctx.messages[0]!.messageID
      ctx.refuse(ctx.messages[0]!, ReasonCode.InBlacklist)
    })
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    const { reason, steps, pushedCount, messageSeq } = engine.trace(messageID)!
    expect({ reason, steps: steps.map(({ step }) => step), pushedCount, messageSeq }).toEqual({
      reason: 'InBlacklist', steps: ['accepted', 'refused'], pushedCount: 0, messageSeq: 0,
    })
  })

  test('of a repeat names the original', async () => {
    const { engine, connect } = await stage({ limits: TRACED })
    const ids: string[] = []
    engine.use('EventChannelDistribute', function see(ctx) { ids.push(...ctx.messages.map((message) => message.messageID)) })
    const { client: ann } = await connect('ann')
    const first = await ann.send({ ...text('one'), clientMsgNo: 'same' })
    await ann.send({ ...text('one'), clientMsgNo: 'same' })
    await ann.send({ ...text('other'), clientMsgNo: 'same' })
    expect(engine.trace(ids[1]!)).toMatchObject({ reason: 'Success', repeatOf: first.messageID, messageSeq: 1, pushedCount: 0 })
    expect(engine.trace(ids[2]!)).toMatchObject({ reason: 'IdempotencyConflict', repeatOf: undefined, messageSeq: 0 })
  })

  test('follows what the host sends', async () => {
    const { engine, connect } = await stage({ limits: TRACED })
    const { client: bob } = await connect('bob')
    const { messageID } = await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('hello') })
    await bob.nextRecv()
    await bob.ping()
    expect(engine.trace(messageID)).toMatchObject({ connectionID: undefined, reason: 'Success', pushedCount: 1, acknowledgedCount: 1 })
  })

  test('follows a message through a log', async () => {
    const { engine, connect } = await stage({ replicator: memoryReplicatorHub().replicator(), limits: TRACED })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const { messageID } = await ann.send(text('one'))
    await bob.nextRecv()
    await bob.ping()
    expect(engine.trace(messageID)).toMatchObject({ reason: 'Success', messageSeq: 1, pushedCount: 1, acknowledgedCount: 1 })
  })

  test('costs no look at the clock where it is off, also for what goes to other nodes', async () => {
    const readCounts: number[] = []
    for (const tracedMessages of [0, 10]) {
      const clock = new CountingClock()
      const presence = memoryPresence({ nowMs: () => 0 })
      await presence.online({ uid: 'cat', nodeID: 2, connectionID: 'x', deviceFlag: 0, deviceLevel: 0 })
      const pushed: string[] = []
      const peerPush: PeerPush = {
        start: () => undefined, kick: () => undefined, close: () => undefined, push: (_nodeID, { messages }) => void pushed.push(...messages.map(({ clientMsgNo }) => clientMsgNo)),
      }
      const { engine, connect } = await stage({ clock, presence, peerPush, limits: { tracedMessages }, storage: memoryStorage({ nowMs: () => 0 }) })
      const { client: bob } = await connect('bob')
      clock.readCount = 0
      await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('hello'), clientMsgNo: 'n1' })
      await bob.nextRecv()
      await clock.settle()
      expect(pushed).toEqual(['n1'])
      readCounts.push(clock.readCount)
      await engine.close()
    }
    expect(readCounts).toEqual([2, 5]) // its id and its time; and when it was stored, pushed and acknowledged
  })

  test('knows the last tracedMessages, and none by default', async () => {
    const { engine, connect } = await stage({ limits: { tracedMessages: 2 } })
    const { client: ann } = await connect('ann')
    const ids: string[] = []
    for (const payload of ['one', 'two', 'three']) ids.push((await ann.send(text(payload))).messageID)
    expect(ids.map((messageID) => engine.trace(messageID)?.messageSeq)).toEqual([undefined, 2, 3])
    const off = await stage()
    const { client: dan } = await off.connect('ann')
    expect(off.engine.trace((await dan.send(text('one'))).messageID)).toBeUndefined()
  })
})
