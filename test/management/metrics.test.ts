import { DeviceFlag, IMError, memoryPeerHub, memoryPresence, memoryStorage, ReasonCode, type EngineMetrics, type IMEngine, type QueueName } from 'imengine'
import { FrameType } from 'imengine/protocol'
import { socketPair, TestClient } from 'imengine/testing'
import { describe, expect, test } from 'vitest'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const text = (payload: string) => ({ ...TEAM, payload })

/** Every object in it, itself included. */
function objectsOf(value: unknown): object[] {
  return typeof value === 'object' && value !== null ? [value, ...Object.values(value).flatMap(objectsOf)] : []
}

const total = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0)

describe('metrics', () => {
  test('are all zero before anything has happened, and name every queue', async () => {
    const { engine } = await stage()
    const metrics = engine.metrics()
    const queues: QueueName[] = ['user', 'sign', 'channel', 'handOver', 'pusher', 'send', 'unacked', 'unauthenticated', 'replay', 'peer', 'webhook', 'outbox']
    expect(Object.keys(metrics.queues)).toEqual(queues)
    for (const queue of Object.values(metrics.queues)) expect(queue).toMatchObject({ depth: 0, rejectedCount: 0, oldestMs: 0 })
    expect(metrics.messages.storedCount + metrics.connections.openedCount + total(Object.values(metrics.framesIn))).toBe(0)
    expect(metrics.sendacks).toEqual({})
    expect(metrics.latency.steps.every(({ latency }) => latency.count === 0)).toBe(true)
  })

  test('are plain and frozen, and a later one is another one', async () => {
    const { engine, connect } = await stage()
    const before = engine.metrics()
    await connect('ann')
    expect(before.connections.openedCount).toBe(0)
    expect(engine.metrics().connections.openedCount).toBe(1)
    expect(objectsOf(engine.metrics()).filter((object) => !Object.isFrozen(object))).toEqual([])
    expect(structuredClone(before)).toEqual(before)
    expect(JSON.parse(JSON.stringify(before))).toEqual(before)
  })

  test('count what goes in and out, by frame and by reason', async () => {
    const { engine, connect } = await stage()
    const [ann, bob] = [(await connect('ann')).client, (await connect('bob')).client]
    await ann.send(text('one'))
    await ann.send({ ...text('two'), clientMsgNo: 'same' })
    await ann.send({ ...text('two'), clientMsgNo: 'same' })
    await ann.send({ ...text('three'), channelID: 'nobody knows it' })
    await bob.ping()
    await bob.nextRecv()
    await bob.nextRecv()
    await bob.ping()
    const { framesIn, sendacks, messages, connections } = engine.metrics()
    expect(framesIn).toEqual({ CONNECT: 2, SEND: 4, RECVACK: 2, PING: 2, DISCONNECT: 0, SUB: 0, EVENT: 0, other: 0 })
    expect(sendacks).toEqual({ Success: 3, ChannelNotExist: 1 })
    expect(messages).toEqual({ storedCount: 2, repeatedCount: 1, pushedCount: 2, redeliveredCount: 0, replayedCount: 0, undeliveredCount: 0 })
    expect(connections.states).toEqual({ new: 0, authenticating: 0, open: 2, closing: 0 })
  })

  test('count connections by how they ended, and refused ones by why', async () => {
    const { engine, connect } = await stage({
      tokenVerifier: ({ token }) => (token === 'bad' ? { ok: false } : { ok: true }),
      limits: { maxUnauthenticated: 1 },
    })
    const { client: ann } = await connect('ann')
    await connect('bob')
    engine.connections.kick({ uid: 'bob' })
    ann.write({ type: FrameType.DISCONNECT, flags: 0, reasonCode: 0, reason: '' })
    await ann.closed
    const stranger = strangerOf(engine)
    await expect(connect('cat')).rejects.toThrow('ended') // a socket more than may be strangers
    expect((await stranger.connect({ uid: 'dan', token: 'bad' })).reasonCode).toBe(ReasonCode.AuthFail)
    const { connections, queues } = engine.metrics()
    expect(connections.openedCount).toBe(2)
    expect(connections.closed).toMatchObject({ client: 1, kicked: 1, peer: 0, idle: 0 })
    expect(connections.refused).toEqual([
      { cause: 'limit', reason: 'too many connections that have not logged in', count: 1 },
      { cause: 'refused', reason: 'AuthFail', count: 1 },
    ])
    expect(queues.unauthenticated).toMatchObject({ capacity: 1, rejectedCount: 1 })
  })

  test('say how deep each queue is and how old what waits in it', async () => {
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect, clock } = await stage({
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
    })
    const { client: ann } = await connect('ann')
    const first = ann.send(text('one'))
    await clock.advance(300)
    const second = ann.send(text('two'))
    await clock.advance(400)
    expect(engine.metrics().queues.channel).toEqual({ depth: 2, capacity: 200_000, rejectedCount: 0, oldestMs: 700 })
    expect(engine.metrics().queues.user).toMatchObject({ depth: 0, oldestMs: 0 })
    held.resolve()
    await Promise.all([first, second])
    expect(engine.metrics().queues.channel).toMatchObject({ depth: 0, oldestMs: 0 })
  })

  test('what waits behind a batch is as old as it is, not as the batch', async () => {
    const calls = [deferred(), deferred()]
    const storage = memoryStorage()
    let callCount = 0
    const append: typeof storage.messages.append = async (batches) => (await calls[callCount++]!.promise, await storage.messages.append(batches))
    const { engine, connect, clock } = await stage({ storage: storageWith(storage, { append }) })
    const { client: ann } = await connect('ann')
    const first = ann.send(text('one'))
    await clock.advance(1_000)
    const second = ann.send(text('two'))
    await clock.advance(200)
    calls[0]!.resolve()
    await first
    expect(engine.metrics().queues.channel).toMatchObject({ depth: 1, oldestMs: 200 })
    calls[1]!.resolve()
    await second
  })

  test('count what a queue turns away', async () => {
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect } = await stage({
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
      limits: { maxQueuedPerChannel: 1 },
    })
    const { client: ann } = await connect('ann')
    const first = ann.send(text('one'))
    expect((await ann.send(text('two'))).reasonCode).toBe(ReasonCode.RateLimit)
    expect(engine.metrics().queues.channel.rejectedCount).toBe(1)
    expect(engine.metrics().sendacks).toEqual({ RateLimit: 1 })
    held.resolve()
    await first
  })

  test('count what a user has too much of', async () => {
    const held = deferred()
    const { engine, connect } = await stage({
      webhook: { beforeSend: async () => (await held.promise, { code: 0 }) },
      limits: { maxQueuedPerUser: 1 },
    })
    const { client: ann } = await connect('ann')
    const first = ann.send(text('one'))
    expect((await ann.send(text('two'))).reasonCode).toBe(ReasonCode.RateLimit)
    expect(engine.metrics().queues.user).toMatchObject({ depth: 1, rejectedCount: 1 })
    held.resolve()
    await first
    expect(engine.metrics().webhook.beforeSendCount).toBe(1)
  })

  test('have the time from SEND to SENDACK and to RECV, and of each step', async () => {
    const held = deferred()
    const storage = memoryStorage()
    const { engine, connect, clock } = await stage({
      storage: storageWith(storage, { append: async (batches) => (await held.promise, await storage.messages.append(batches)) }),
      limits: { stepTimesEvery: 1 },
    })
    const [ann, bob] = [(await connect('ann')).client, (await connect('bob')).client]
    const sent = ann.send(text('one'))
    await clock.advance(30)
    held.resolve()
    await Promise.all([sent, bob.nextRecv()])
    const { boundsMs, sendToSendack, sendToRecv, steps } = engine.metrics().latency
    const bucket = boundsMs.indexOf(50)
    for (const histogram of [sendToSendack, sendToRecv, stepOf(steps, 'store')]) {
      expect(histogram).toMatchObject({ count: 1, sumMs: 30 })
      expect(histogram.counts[bucket]).toBe(1)
      expect(histogram.counts).toHaveLength(boundsMs.length + 1)
    }
    expect(stepOf(steps, 'preCheck')).toMatchObject({ count: 1, sumMs: 0 })
    expect(stepOf(steps, 'authenticate').count).toBe(2)
    expect(steps.map(({ event, step }) => `${event}.${step}`).filter((name) => name.startsWith('EventOnSend'))).toEqual([
      'EventOnSend.checkPermission', 'EventOnSend.callWebhook', 'EventOnSend.acceptSend',
    ])
  })

  test('have no time to RECV of a message that went to its own sender alone, and one when another device of theirs gets it', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann', { deviceID: 'phone' })
    await ann.send(text('nobody is there'))
    expect(engine.metrics().latency).toMatchObject({ sendToSendack: { count: 1 }, sendToRecv: { count: 0 } })
    const { client: desk } = await connect('ann', { deviceID: 'desk', deviceFlag: DeviceFlag.Pc })
    await ann.send(text('to my desk'))
    await desk.nextRecv()
    expect(engine.metrics().latency).toMatchObject({ sendToSendack: { count: 2 }, sendToRecv: { count: 1 } })
  })

  test.each([[0, 0], [1, 5], [2, 3], [4, 2]])('time one event in %i of each kind: %i of five', async (stepTimesEvery, timedCount) => {
    const { engine, connect } = await stage({ limits: { stepTimesEvery } })
    const { client: ann } = await connect('ann')
    for (let count = 0; count < 5; count++) await ann.send(text('again'))
    expect(stepOf(engine.metrics().latency.steps, 'checkPermission').count).toBe(timedCount)
    expect(engine.metrics().latency.sendToSendack.count).toBe(5)
  })

  test('time a step that fails, and a handler of the host under its name', async () => {
    const { engine, connect } = await stage({ limits: { stepTimesEvery: 1 } })
    engine.use('EventOnSend', function judge() { throw new Error('never') })
    const { client: ann } = await connect('ann')
    expect((await ann.send(text('one'))).reasonCode).toBe(ReasonCode.SystemError)
    const { latency: { steps }, errors } = engine.metrics()
    expect(stepOf(steps, 'judge').count).toBe(1)
    expect(stepOf(steps, 'acceptSend').count).toBe(0)
    expect(errors).toEqual({ IM_HANDLER_FAILED: 1 })
  })

  test('count what is sent again and what waits for RECVACK', async () => {
    const { engine, connect, clock } = await stage({ limits: { redeliverAfterMs: 1_000, maxRedeliveries: 1 } })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob', { autoAck: false })
    await ann.send(text('one'))
    await bob.nextRecv()
    await clock.advance(400)
    expect(engine.metrics().queues.unacked).toEqual({ depth: 1, capacity: 1_024, rejectedCount: 0, oldestMs: 400 })
    await clock.advance(1_000)
    await bob.nextRecv()
    expect(engine.metrics().messages.redeliveredCount).toBe(1)
    await clock.advance(2_000)
    expect(engine.metrics().messages).toMatchObject({ redeliveredCount: 1, undeliveredCount: 1 })
    expect(engine.metrics().queues.unacked.depth).toBe(0)
  })

  test('count what is forgotten at the bound of unacknowledged messages', async () => {
    const { engine, connect } = await stage({ limits: { maxUnackedRecvs: 1 } })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob', { autoAck: false })
    await ann.send(text('one'))
    await ann.send(text('two'))
    await bob.nextRecv()
    expect(engine.metrics().queues.unacked).toMatchObject({ depth: 1, capacity: 1, rejectedCount: 1 })
  })

  test('count replays', async () => {
    const { engine, connect } = await stage()
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    await ann.send(text('two'))
    const { client: bob } = await connect('bob')
    await bob.nextRecv()
    await bob.nextRecv()
    expect(engine.metrics()).toMatchObject({ replayCount: 2, messages: { replayedCount: 2, pushedCount: 2 } })
  })

  test('count frames that a client has not read, and since when', async () => {
    const { engine, connect, clock } = await stage({ slowConsumer: 'skip' })
    const { client: ann } = await connect('ann')
    const { client: bob, pair } = await connect('bob', { highWaterBytes: 1 })
    pair.client.pauseReading()
    for (const payload of ['one', 'two', 'three']) await ann.send(text(payload))
    await clock.advance(500)
    expect(engine.metrics().queues.send).toEqual({ depth: 2, capacity: undefined, rejectedCount: 0, oldestMs: 500 }) // the transport has the first
    pair.client.resumeReading()
    for (let count = 0; count < 3; count++) await bob.nextRecv()
    expect(engine.metrics().queues.send).toMatchObject({ depth: 0, oldestMs: 0 })
  })

  test('say since when a transport takes nothing, also when one frame was enough and left in the middle of a turn', async () => {
    const { engine, connect, clock } = await stage({ slowConsumer: 'skip', plaintext: 'allow', limits: { maxPayloadBytes: 200_000 } })
    const { pair } = await connect('bob', { highWaterBytes: 1, plaintext: true })
    pair.client.pauseReading()
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.alloc(100_000, 97) })
    await clock.advance(500)
    expect(engine.metrics().queues.send).toMatchObject({ depth: 0, oldestMs: 500 }) // the transport has it
    pair.client.resumeReading()
    await clock.settle()
    expect(engine.metrics().queues.send).toMatchObject({ oldestMs: 0 })
  })

  test('count what the webhook was told, and what failed', async () => {
    let isDown = true
    const told: number[] = []
    const { engine, connect, clock } = await stage({
      webhook: {
        events: ['msg.notify'],
        notify: (events) => {
          if (isDown) throw new Error('down')
          told.push(events.length)
        },
      },
    })
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    await clock.advance(200)
    expect(engine.metrics().webhook).toMatchObject({ deliveredCount: 0, failedCallCount: 1 })
    expect(engine.metrics().queues.webhook).toMatchObject({ depth: 1 })
    expect(engine.metrics().queues.webhook.oldestMs).toBeGreaterThan(0)
    expect(engine.metrics().queues.outbox).toMatchObject({ depth: 1, capacity: 100_000 })
    isDown = false
    await clock.advance(2_000)
    expect(told).toEqual([1])
    expect(engine.metrics().webhook).toEqual({ beforeSendCount: 0, deliveredCount: 1, failedCallCount: 1, givenUpCount: 0 })
    expect(engine.metrics().queues.outbox.depth).toBe(0)
  })

  test('count what the outbox has no room for', async () => {
    const { engine, connect } = await stage({
      webhook: { events: ['user.onlinestatus'], notify: () => new Promise<never>(() => undefined) },
      limits: { maxWebhookNotifications: 1 },
    })
    await connect('ann')
    await connect('bob')
    expect(engine.metrics().queues.outbox).toMatchObject({ depth: 1, capacity: 1, rejectedCount: 1 })
    expect(engine.metrics().webhook.givenUpCount).toBe(1)
  })

  test('count what goes to other nodes and comes from them', async () => {
    const hub = memoryPeerHub()
    const presence = memoryPresence({ nowMs: () => 0 })
    const one = await stage({ nodeID: 1, peerPush: hub.peer(), presence })
    const two = await stage({ nodeID: 2, peerPush: hub.peer(), presence })
    const { client: ann } = await one.connect('ann')
    const { client: bob } = await two.connect('bob')
    await ann.send({ channelID: 'bob', channelType: 1, payload: 'hello' })
    await bob.nextRecv()
    await one.clock.advance(10)
    expect(one.engine.metrics().peers).toMatchObject({ pushedCount: 1, failedPushCount: 0, receivedCount: 0, kickCount: 1, failedKickCount: 0 })
    expect(two.engine.metrics().peers).toMatchObject({ pushedCount: 0, receivedCount: 1, kickCount: 1 })
    expect(one.engine.metrics().queues.peer.depth).toBe(0)
  })

  test('count failures by code', async () => {
    const storage = memoryStorage()
    const { engine, connect } = await stage({ storage: storageWith(storage, { append: () => { throw new IMError('IM_STORE_FULL') } }) })
    const { client: ann } = await connect('ann')
    await ann.send(text('one'))
    await ann.send(text('two'))
    expect(engine.metrics().errors).toEqual({ IM_STORE_FULL: 2 })
    expect(engine.metrics().messages.storedCount).toBe(0)
  })
})

function stepOf(steps: EngineMetrics['latency']['steps'], name: string): EngineMetrics['latency']['sendToSendack'] {
  return steps.find(({ step }) => step === name)!.latency
}

/** A client that has not said anything yet. */
function strangerOf(engine: IMEngine): TestClient {
  const pair = socketPair()
  pair.attach(engine.accept(pair.server))
  return new TestClient(pair.client)
}
