import { describe, expect, test } from 'vitest'
import { DeviceLevel, ReasonCode, type IMEngineOptions } from 'imengine'
import { encode } from 'imengine/protocol'
import type { TestClient } from 'imengine/testing'
import { FrameType, LATEST_VERSION } from '../../src/model/frames.ts'
import { deferred, stage, TEAM, type Stage } from '../support.ts'
import { heard, openSocket, plainConnect, plainSend, typesOf } from './raw.ts'

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

  test('per address knows an IPv4 peer again behind a socket that listens on IPv6, and shows the address as it came', async () => {
    const { engine, clock } = await stage({ limits: { maxConnectionsPerAddress: 2 } })
    const refused = heard(engine, 'connectionRefused')
    openSocket(engine, { remoteAddress: '10.0.0.1' })
    const second = openSocket(engine, { remoteAddress: '::ffff:10.0.0.1' })
    const third = openSocket(engine, { remoteAddress: '::FFFF:10.0.0.1' })
    const others = ['::ffff:10.0.0.2', '::1', '::ffff:0:1', 'fe80::ffff:10'].map((remoteAddress) => openSocket(engine, { remoteAddress }))
    await clock.settle()
    expect(second.pair.client.socketEnd).toBeUndefined()
    expect(third.pair.client.socketEnd).toMatchObject({ by: 'server' })
    for (const { pair } of others) expect(pair.client.socketEnd).toBeUndefined()
    expect(refused).toMatchObject([{ cause: 'limit', remoteAddress: '::FFFF:10.0.0.1', detail: 'too many connections of this address' }])
    second.pair.client.destroy()
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

describe('the number of sockets that nobody has logged in on', () => {
  test('bounds strangers and leaves those who are logged in alone; a login, and an end, makes a place free', async () => {
    const answer = deferred<{ ok: true }>()
    const { engine, clock, connect } = await stage({
      limits: { maxUnauthenticated: 2 },
      tokenVerifier: ({ token }) => (token === 'slow' ? (answer.promise) : { ok: true }),
    })
    const refused = heard(engine, 'connectionRefused')
    const inside = [await connect('ann'), await connect('bob'), await connect('cat')]
    const silent = openSocket(engine)
    const slow = openSocket(engine)
    const login = slow.client.connect({ uid: 'dan', token: 'slow' })
    await clock.settle()
    const third = openSocket(engine, { framing: 'message', remoteAddress: '10.0.0.3' })
    await clock.settle()
    expect(third.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1013 })
    expect(third.pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'limit', connectionID: '', remoteAddress: '10.0.0.3', detail: 'too many connections that have not logged in' }])
    for (const { client } of inside) await client.ping()
    expect(silent.pair.client.socketEnd).toBeUndefined()
    answer.resolve({ ok: true })
    expect((await login).reasonCode).toBe(ReasonCode.Success)
    expect((await openSocket(engine).client.connect({ uid: 'eve' })).reasonCode).toBe(ReasonCode.Success)
    openSocket(engine)
    silent.pair.client.destroy()
    await clock.settle()
    expect((await openSocket(engine).client.connect({ uid: 'fay' })).reasonCode).toBe(ReasonCode.Success)
    expect(refused).toHaveLength(2) // and the silent one, which left by itself
  })

  test('counts a refused one until its socket is gone', async () => {
    const { engine, clock } = await stage({ limits: { maxUnauthenticated: 1 }, tokenVerifier: () => ({ ok: false }) })
    const first = openSocket(engine)
    first.pair.client.pauseReading()
    void first.client.connect({ uid: 'ann' }).catch(() => undefined)
    await clock.settle()
    const second = openSocket(engine)
    await clock.settle()
    expect(second.pair.client.socketEnd).toMatchObject({ by: 'server' })
    await clock.advance(engine.limits.closeTimeoutMs + 200)
    expect((await openSocket(engine).client.connect({ uid: 'ann' })).reasonCode).toBe(ReasonCode.AuthFail)
  })
})

describe('the bytes of a connection that is not admitted', () => {
  /** CONNECT of a plain client and a SEND behind it, `total` bytes together. */
  function hasty(total: number): Uint8Array {
    const connect = encode(plainConnect('ann'), LATEST_VERSION)
    const send = (padding: number): Uint8Array => encode(plainSend('x'.repeat(padding)), LATEST_VERSION)
    const bytes = Buffer.concat([connect, send(total - connect.length - send(300).length + 300)])
    expect(bytes).toHaveLength(total)
    return bytes
  }

  const options: Partial<IMEngineOptions> = { plaintext: 'allow', limits: { maxUnauthenticatedBytes: 1_000 } }

  test.each([1_000, 7])('may be as many as the bound, in chunks of %i', async (chunkBytes) => {
    const { engine, clock } = await stage(options)
    const { client } = openSocket(engine)
    const bytes = hasty(1_000)
    for (let at = 0; at < bytes.length; at += chunkBytes) client.sendRaw(bytes.subarray(at, at + chunkBytes))
    expect((await client.next(FrameType.CONNACK)).reasonCode).toBe(ReasonCode.Success)
    for (let count = 0; count < 20; count++) client.write(plainSend('y'.repeat(100))) // no stranger any more
    await clock.settle()
    expect(typesOf(client)).toEqual([FrameType.CONNACK, ...Array<number>(20).fill(FrameType.SENDACK)])
  })

  test.each([1_001, 7])('one more closes the connection without a word, in chunks of %i, and nobody else notices', async (chunkBytes) => {
    const never = (): Promise<never> => new Promise(() => undefined)
    const { engine, clock, connect } = await stage({ ...options, tokenVerifier: ({ uid }) => (uid === 'ann' ? never() : { ok: true }) })
    const refused = heard(engine, 'connectionRefused')
    const bob = await connect('bob')
    const { client, pair } = openSocket(engine)
    const bytes = hasty(1_001)
    for (let at = 0; at < bytes.length; at += chunkBytes) client.sendRaw(bytes.subarray(at, at + chunkBytes))
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'limit', reasonCode: undefined }])
    await bob.client.ping()
  })

  test('count when they are dropped or never become a frame, too', async () => {
    const { engine, clock } = await stage(options)
    const blank = openSocket(engine)
    const unfinished = openSocket(engine)
    const start = encode({ ...plainConnect('ann'), token: 'x'.repeat(2_000) }, LATEST_VERSION)
    for (let count = 0; count < 10; count++) {
      blank.client.sendRaw(new Uint8Array(100).fill(0x20))
      unfinished.client.sendRaw(start.subarray(100 * count, 100 * (count + 1)))
    }
    await clock.settle()
    for (const { pair } of [blank, unfinished]) expect(pair.client.socketEnd).toBeUndefined()
    for (const { client } of [blank, unfinished]) client.sendRaw(Uint8Array.of(0x20))
    await clock.settle()
    for (const { pair } of [blank, unfinished]) expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
  })

  test('suffice by default for the longest CONNECT that the wire has room for', async () => {
    const longest = 'x'.repeat(32_767)
    const { engine } = await stage({ tokenVerifier: ({ token, deviceID }) => ({ ok: token === longest && deviceID === longest }) })
    const { client } = openSocket(engine)
    expect((await client.connect({ uid: 'u'.repeat(32_767), token: longest, deviceID: longest })).reasonCode).toBe(ReasonCode.Success)
  })
})

describe('the rate of SENDs of a user', () => {
  /** How a SEND is answered. Its text is its number, because all connections of a user share those. */
  const rate = async (client: TestClient, text: string): Promise<number> => (await client.send({ ...TEAM, payload: text, clientMsgNo: text })).reasonCode

  test('is shared by all connections of the user, and by nobody else', async () => {
    const { engine, clock, connect } = await stage({ limits: { maxSendsPerSecondPerUID: 3 } })
    const refused = heard(engine, 'messageRefused')
    const phone = await connect('ann', { deviceID: 'phone' })
    const laptop = await connect('ann', { deviceID: 'laptop' })
    const bob = await connect('bob')
    const answers = await Promise.all([
      rate(phone.client, '1'),
      rate(laptop.client, '2'),
      rate(phone.client, '3'),
    ])
    expect(answers).toEqual(Array(3).fill(ReasonCode.Success))
    expect(await laptop.client.send({ ...TEAM, payload: '4' })).toMatchObject({ reasonCode: ReasonCode.RateLimit, messageID: '0', messageSeq: 0 })
    expect(refused).toMatchObject([{ fromUID: 'ann', channelID: 'team', reasonCode: ReasonCode.RateLimit }])
    for (const payload of ['a', 'b', 'c']) expect(await rate(bob.client, payload)).toBe(ReasonCode.Success)
    await laptop.client.ping()
    await clock.advance(334)
    expect(await rate(phone.client, '5')).toBe(ReasonCode.Success)
    expect(await rate(phone.client, '6')).toBe(ReasonCode.RateLimit)
    await clock.advance(10_000) // no more than a second is saved up
    const later = await Promise.all(['7', '8', '9', '10'].map((text) => rate(laptop.client, text)))
    expect(later).toEqual([...Array<number>(3).fill(ReasonCode.Success), ReasonCode.RateLimit])
  })

  test('is not earned anew by logging out and in', async () => {
    const { engine, clock, connect } = await stage({ limits: { maxSendsPerSecondPerUID: 2 } })
    let passedCount = 0
    for (let round = 0; round < 25; round++) {
      const { client, pair } = await connect('ann')
      for (const payload of ['a', 'b']) if (await rate(client, `${payload}${round}`) === ReasonCode.Success) passedCount++
      pair.client.destroy()
      await clock.advance(100)
    }
    expect(passedCount).toBe(6) // two at once, and one for every half of the 2.4 seconds
    expect(engine.connections.list()).toEqual([])
  })

  test('loses nothing to SENDs that the rate of their own connection turns away', async () => {
    const { connect } = await stage({ limits: { maxSendsPerSecond: 1, maxSendsPerSecondPerUID: 2 } })
    const phone = await connect('ann', { deviceID: 'phone' })
    const laptop = await connect('ann', { deviceID: 'laptop' })
    const answers = await Promise.all(['1', '2', '3', '4'].map((text) => rate(phone.client, text)))
    expect(answers).toEqual([ReasonCode.Success, ...Array<number>(3).fill(ReasonCode.RateLimit)])
    expect(await rate(laptop.client, '5')).toBe(ReasonCode.Success)
  })
})

describe('the rate of SENDs of a connection', () => {
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
  const plain = { plaintext: 'allow', limits: { maxPayloadBytes: 100 } } as const

  // Encrypted it is padded to 16 and written as base64: 99 and 100 bytes travel as equally many.
  test.each([
    ['encrypted', 100, ReasonCode.Success], ['encrypted', 101, ReasonCode.PayloadDecodeError],
    ['plain', 100, ReasonCode.Success], ['plain', 101, ReasonCode.PayloadDecodeError],
  ])('%s, of %d bytes, gets %d when 100 are allowed', async (how, size, reasonCode) => {
    const { engine, clock, connect } = await stage(plain)
    const refused = heard(engine, 'messageRefused')
    const { client } = await connect('ann', { plaintext: how === 'plain' })
    const bob = await connect('bob')
    expect(await client.send({ ...TEAM, payload: 'x'.repeat(size) })).toMatchObject({ reasonCode })
    await clock.settle()
    const isStored = reasonCode === ReasonCode.Success
    expect(await engine.messages.lastSeq(TEAM)).toBe(isStored ? 1 : 0)
    expect(bob.client.messages.map(({ text }) => text.length)).toEqual(isStored ? [size] : [])
    expect(refused.map((fact) => fact.reasonCode)).toEqual(isStored ? [] : [reasonCode])
    await client.ping()
  })
})

describe('the size of a frame', () => {
  /** A SEND whose remaining length is `bodyBytes`. */
  function sized(bodyBytes: number): Uint8Array {
    const bytes = encode(plainSend('x'.repeat(bodyBytes - (encode(plainSend('x'.repeat(900)), LATEST_VERSION).length - 3 - 900))), LATEST_VERSION)
    expect(bytes).toHaveLength(bodyBytes + 3) // the type and two bytes of length
    return bytes
  }

  const options = { plaintext: 'allow', limits: { maxFrameBytes: 1_024 } } as const

  test('may be maxFrameBytes', async () => {
    const { engine, connect } = await stage(options)
    const { client } = await connect('ann', { plaintext: true })
    client.sendRaw(sized(1_024))
    expect((await client.next(FrameType.SENDACK)).reasonCode).toBe(ReasonCode.Success)
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })

  test('one byte longer closes its connection before the body has come, and no other', async () => {
    const { engine, clock, connect } = await stage(options)
    const disconnected = heard(engine, 'disconnected')
    const { client, pair } = await connect('ann', { plaintext: true, framing: 'message' })
    const other = await connect('ann', { deviceID: 'other' })
    client.sendRaw(sized(1_025).subarray(0, 3))
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1009 })
    expect(disconnected).toMatchObject([{ cause: 'malformed' }])
    await other.client.ping()
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

  test.each(['disconnect', 'skip'] as const)("is given one more at maxOutboundBytes exactly, and none one byte beyond it ('%s')", async (slowConsumer) => {
    const recvBytes = 1_100
    /** how many messages bob, who does not read, was given before his bound was found reached */
    const givenTo = async (maxOutboundBytes: number): Promise<number> => {
      const made = await stage({ plaintext: 'allow', slowConsumer, limits: { maxOutboundBytes } })
      const slow = heard(made.engine, 'slowConsumer')
      const bob = await made.connect('bob', { plaintext: true, framing: 'message', highWaterBytes: 1, autoAck: false })
      const cat = await made.connect('cat')
      // Only the first one leaves the engine, and waits in the socket; the others wait in the engine.
      bob.pair.client.pauseReading()
      let givenCount = 0
      for (; slow.length === 0; givenCount++) {
        // With a number of fixed length every RECV is as long as the first.
        await made.engine.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo: `n${givenCount}`, payload: Buffer.from('x'.repeat(1_000)) })
        await made.clock.settle()
      }
      const sent = bob.pair.sentChunks.at(-1)!
      expect(sent.length).toBeLessThan(recvBytes)
      firstBytes = sent.length
      expect(slow).toMatchObject([{ connection: { uid: 'bob' }, action: slowConsumer === 'skip' ? 'skipped' : 'disconnected' }])
      expect(bob.pair.client.socketEnd === undefined).toBe(slowConsumer === 'skip')
      expect(cat.client.messages).toHaveLength(givenCount)
      return givenCount - 1
    }
    let firstBytes = 0
    await givenTo(2_000)
    const twoWaiting = firstBytes + (firstBytes + 64) // what waits in the engine counts 64 on top
    expect(await givenTo(twoWaiting)).toBe(3)
    expect(await givenTo(twoWaiting - 1)).toBe(2)
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
