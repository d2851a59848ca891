import { describe, expect, test } from 'vitest'
import { DeviceLevel, ReasonCode } from 'imengine'
import { FrameType } from '../../src/model/frames.ts'
import { stage, TEAM, type Stage } from '../support.ts'
import { heard, openSocket, typesOf } from './raw.ts'

describe('the number of connections', () => {
  test('in total counts sockets that have not said anything, and a place is free when one leaves', async () => {
    const { engine, clock } = await stage({ limits: { maxConnections: 2 } })
    const refused = heard(engine, 'connectionRefused')
    const first = openSocket(engine)
    await openSocket(engine).client.connect({ uid: 'ann' })
    const third = openSocket(engine, { framing: 'message' })
    await clock.settle()
    expect(third.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1013 })
    expect(third.pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'limit', detail: 'too many connections', uid: '' }])
    first.pair.client.end()
    await clock.settle()
    const { client } = openSocket(engine)
    expect((await client.connect({ uid: 'bob' })).reasonCode).toBe(ReasonCode.Success)
  })

  test('per address concerns that address only, and sockets of unknown origin not at all', async () => {
    const { engine, clock } = await stage({ limits: { maxConnectionsPerAddress: 1 } })
    const first = openSocket(engine, { remoteAddress: '10.0.0.1' })
    const second = openSocket(engine, { remoteAddress: '10.0.0.1', framing: 'message' })
    const other = openSocket(engine, { remoteAddress: '10.0.0.2' })
    const unknown = [openSocket(engine), openSocket(engine)]
    await clock.settle()
    expect(second.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1013 })
    for (const { pair } of [first, other, ...unknown]) expect(pair.client.socketEnd).toBeUndefined()
    first.pair.client.destroy()
    await clock.settle()
    const again = openSocket(engine, { remoteAddress: '10.0.0.1' })
    await clock.settle()
    expect(again.pair.client.socketEnd).toBeUndefined()
  })

  test('per user refuses the next login with CONNACK 22, and leaves those that are there alone', async () => {
    const { engine, clock, connect } = await stage({ limits: { maxConnectionsPerUID: 2 } })
    const refused = heard(engine, 'connectionRefused')
    const [first, second] = [await connect('ann', { deviceID: '1' }), await connect('ann', { deviceID: '2' })]
    const third = openSocket(engine, { framing: 'message' })
    expect((await third.client.connect({ uid: 'ann', deviceID: '3' })).reasonCode).toBe(ReasonCode.RateLimit)
    await clock.settle()
    expect(third.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1008 })
    expect(refused).toMatchObject([{ uid: 'ann', reasonCode: ReasonCode.RateLimit }])
    await first.client.ping()
    await connect('bob')
    second.client.end()
    await clock.settle()
    await connect('ann', { deviceID: '3' })
  })

  test('per user does not count those whose place the login takes', async () => {
    const { engine, connect } = await stage({
      limits: { maxConnectionsPerUID: 1 },
      tokenVerifier: () => ({ ok: true, deviceLevel: DeviceLevel.Master }),
    })
    await connect('ann', { deviceID: '1' })
    const second = await connect('ann', { deviceID: '2' })
    expect(second.connack.reasonCode).toBe(ReasonCode.Success)
    expect(engine.connections.list({ uid: 'ann' }).map(({ deviceID }) => deviceID)).toEqual(['2'])
  })
})

describe('the rate of SENDs', () => {
  test('beyond it a SEND gets 22 and is not stored; a second later it may pass; other connections are not concerned', async () => {
    const { engine, clock, connect } = await stage({ limits: { maxSendsPerSecond: 2 } })
    const refused = heard(engine, 'messageRefused')
    const ann = await connect('ann')
    const bob = await connect('bob')
    const answers = await Promise.all([1, 2, 3].map((number) => ann.client.send({ ...TEAM, payload: String(number) })))
    expect(answers.map(({ reasonCode }) => reasonCode)).toEqual([ReasonCode.Success, ReasonCode.Success, ReasonCode.RateLimit])
    expect(answers[2]).toMatchObject({ messageID: '0', messageSeq: 0, clientSeq: 3 })
    expect(refused).toMatchObject([{ fromUID: 'ann', reasonCode: ReasonCode.RateLimit }])
    expect(await bob.client.send({ ...TEAM, payload: 'mine' })).toMatchObject({ reasonCode: ReasonCode.Success })
    await clock.advance(1_000)
    expect(await ann.client.send({ ...TEAM, payload: '4' })).toMatchObject({ reasonCode: ReasonCode.Success })
    expect(await engine.messages.lastSeq(TEAM)).toBe(4)
  })
})

describe('the size of a payload', () => {
  test.each([[10, ReasonCode.Success], [11, ReasonCode.PayloadDecodeError]])('of %d plain bytes gets %d when 10 are allowed', async (size, reasonCode) => {
    const { engine, connect } = await stage({ limits: { maxPayloadBytes: 10 } })
    const { client } = await connect('ann')
    expect(await client.send({ ...TEAM, payload: 'x'.repeat(size) })).toMatchObject({ reasonCode })
    expect(await engine.messages.lastSeq(TEAM)).toBe(reasonCode === ReasonCode.Success ? 1 : 0)
    await client.ping()
  })
})

/** Many messages to the team, `perTurn` in one turn. */
async function stream(made: Stage, count: number, size: number, perTurn = 20): Promise<void> {
  for (let sent = 0; sent < count; sent += perTurn) await burst(made, Math.min(perTurn, count - sent), size)
}

/** Many messages to the team, in one turn. */
async function burst({ engine, clock }: Stage, count: number, size: number): Promise<void> {
  const sent = Array.from({ length: count }, (_, index) => {
    return engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(String(index).padEnd(size, '.')) })
  })
  await Promise.all(sent)
  await clock.settle()
}

describe('a client that does not read', () => {
  const limits = { maxOutboundBytes: 100_000 }

  test('is cut at maxOutboundBytes, told as a slow consumer once, and nobody else notices', async () => {
    const made = await stage({ limits })
    const { engine, connect } = made
    const slow = heard(engine, 'slowConsumer')
    const disconnected = heard(engine, 'disconnected')
    const bob = await connect('bob')
    const cat = await connect('cat')
    bob.pair.client.pauseReading()
    await stream(made, 50, 1_000)
    expect(bob.pair.client.socketEnd).toBeUndefined()
    await stream(made, 100, 1_000)
    expect(bob.pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(slow).toMatchObject([{ connection: { uid: 'bob' }, action: 'disconnected' }])
    expect(disconnected).toMatchObject([{ uid: 'bob', cause: 'slow-consumer' }])
    expect(cat.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(Array.from({ length: 150 }, (_, index) => index + 1))
    expect(bob.pair.server.bufferedBytes).toBe(0)
  })

  test("with slowConsumer 'skip' stays and misses some; when it reads again it gets what comes then, in order", async () => {
    const made = await stage({ limits, slowConsumer: 'skip' })
    const { engine, connect, clock } = made
    const slow = heard(engine, 'slowConsumer')
    const bob = await connect('bob')
    const cat = await connect('cat')
    bob.pair.client.pauseReading()
    await stream(made, 150, 1_000)
    expect(bob.pair.client.socketEnd).toBeUndefined()
    expect(slow).toMatchObject([{ connection: { uid: 'bob' }, action: 'skipped' }])
    expect(bob.pair.server.bufferedBytes).toBeLessThanOrEqual(limits.maxOutboundBytes)
    bob.pair.client.resumeReading()
    await clock.settle()
    await burst(made, 1, 10)
    const seqs = bob.client.messages.map(({ messageSeq }) => messageSeq)
    expect(seqs.at(-1)).toBe(151)
    expect(seqs).toEqual(seqs.toSorted((a, b) => a - b))
    expect(seqs.length).toBeLessThan(151)
    expect(new Set(seqs).size).toBe(seqs.length)
    expect(cat.client.messages).toHaveLength(151)
    bob.pair.client.pauseReading()
    await stream(made, 150, 1_000)
    expect(slow).toHaveLength(2) // a second time, told once more
  })

  test("with slowConsumer 'skip' is not cut because of messages that are sent again", async () => {
    const made = await stage({ limits: { ...limits, idleTimeoutMs: 86_400_000 }, slowConsumer: 'skip' })
    const bob = await made.connect('bob', { autoAck: false })
    bob.pair.client.pauseReading()
    await stream(made, 150, 1_000)
    await made.clock.advance(400_000)
    expect(bob.pair.client.socketEnd).toBeUndefined()
    expect(bob.pair.server.bufferedBytes).toBeLessThanOrEqual(2 * limits.maxOutboundBytes)
  })

  test('but asks without end is cut as well: its answers are bounded, too', async () => {
    const made = await stage({ limits: { maxOutboundBytes: 1_024, idleTimeoutMs: 86_400_000 }, slowConsumer: 'skip' })
    const bob = await made.connect('bob')
    bob.pair.client.pauseReading()
    for (let count = 0; count < 40; count++) {
      for (let ping = 0; ping < 100; ping++) bob.client.write({ type: FrameType.PING })
      await made.clock.settle()
    }
    expect(bob.pair.client.socketEnd).toMatchObject({ by: 'server' })
  })
})

describe('a client that reads', () => {
  test.each(['stream', 'message'] as const)('everything at once (%s) is never cut, however small maxOutboundBytes and however large the burst', async (framing) => {
    const made = await stage({ limits: { maxOutboundBytes: 4_096 } })
    const slow = heard(made.engine, 'slowConsumer')
    const bob = await made.connect('bob', { delivery: 'sync', framing })
    await burst(made, 100, 500)
    expect(slow).toEqual([])
    expect(bob.client.messages).toHaveLength(100)
  })

  test.each(['stream', 'message'] as const)('(%s) gets a message that is larger than maxOutboundBytes', async (framing) => {
    const made = await stage({ limits: { maxOutboundBytes: 1_024 } })
    const slow = heard(made.engine, 'slowConsumer')
    const bob = await made.connect('bob', { delivery: 'sync', framing })
    await burst(made, 2, 5_000)
    expect(slow).toEqual([])
    expect(bob.client.messages).toHaveLength(2)
  })
})

describe('frames of one turn', () => {
  test('leave in one write on a byte stream', async () => {
    const made = await stage()
    const bob = await made.connect('bob')
    const before = bob.pair.sentChunks.length
    await burst(made, 20, 10)
    expect(bob.client.messages).toHaveLength(20)
    expect(bob.pair.sentChunks.length - before).toBe(1)
  })

  test('leave as one message each on a transport with messages', async () => {
    const made = await stage()
    const bob = await made.connect('bob', { framing: 'message' })
    const before = bob.pair.sentChunks.length
    await burst(made, 20, 10)
    expect(bob.pair.sentChunks.length - before).toBe(20)
  })

  test('arrive in order when the transport fills up between them and drains later', async () => {
    const made = await stage()
    const bob = await made.connect('bob', { highWaterBytes: 2_000 })
    bob.pair.client.pauseReading()
    for (let round = 0; round < 5; round++) await burst(made, 10, 300)
    expect(bob.client.messages).toEqual([])
    bob.pair.client.resumeReading()
    await made.clock.settle()
    expect(bob.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(Array.from({ length: 50 }, (_, index) => index + 1))
    expect(typesOf(bob.client)[0]).toBe(FrameType.CONNACK)
  })
})
