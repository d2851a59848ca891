import { describe, expect, test, vi } from 'vitest'
import { DeviceLevel, ReasonCode, type IMEngineOptions, type Logger, type TokenVerifier, type VerifyTokenResult } from 'imengine'
import { socketPair } from 'imengine/testing'
import { FrameType, type Frame, type SendPacket } from '../../src/model/frames.ts'
import { encode } from '../../src/protocol/encode.ts'
import { deferred, stage, TEAM } from '../support.ts'
import { heard, openSocket, plainConnect, typesOf } from './raw.ts'

const PLAIN: Partial<IMEngineOptions> = { plaintext: 'allow' }

const SEND: SendPacket = {
  type: FrameType.SEND, flags: 0, setting: 0, clientSeq: 1, clientMsgNo: 'no-1', streamNo: '', ...TEAM, expireSec: 0, msgKey: '', topic: '',
  payload: Buffer.from('hi'),
}

const FROM_SERVERS: Frame[] = [
  { type: FrameType.CONNACK, timeDiffMs: 0n, reasonCode: 1, serverKey: '', salt: '', nodeID: '1' },
  { type: FrameType.SENDACK, flags: 0, messageID: '1', clientSeq: 1, messageSeq: 1, reasonCode: 1 },
  {
    type: FrameType.RECV, flags: 0, setting: 0, msgKey: '', fromUID: 'bob', ...TEAM, expireSec: 0, clientMsgNo: '', streamFlag: 0, streamNo: '',
    streamID: '', messageID: '1', messageSeq: 1, timestampSec: 0, topic: '', payload: Buffer.from('hi'),
  },
  { type: FrameType.PONG },
  { type: FrameType.SUBACK, flags: 0, subNo: '', ...TEAM, action: 0, reasonCode: 1 },
]

const nameOf = (frame: Frame): string => Object.entries(FrameType).find(([, type]) => type === frame.type)![0]

/** A verifier whose answer the test gives. */
function heldVerifier() {
  const asked: { readonly uid: string; readonly signal: AbortSignal }[] = []
  const answer = deferred<VerifyTokenResult>()
  const tokenVerifier: TokenVerifier = ({ uid, signal }) => {
    asked.push({ uid, signal })
    return answer.promise
  }
  return { asked, answer, tokenVerifier }
}

describe('before CONNECT', () => {
  test('silence ends the socket after connectTimeoutMs, not before, and without a word', async () => {
    const { engine, clock } = await stage()
    const refused = heard(engine, 'connectionRefused')
    const { pair } = openSocket(engine)
    await clock.advance(1_900)
    expect(pair.client.socketEnd).toBeUndefined()
    await clock.advance(200)
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
    expect(pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'connect-timeout', uid: '', reasonCode: undefined }])
  })

  test('what is readable when connectTimeoutMs has passed is read first: it may be the server that is late', async () => {
    const { engine, clock } = await stage({ ...PLAIN })
    const judged: (() => void)[] = []
    const { pair, client } = openSocket(engine)
    const defer = vi.spyOn(clock, 'defer').mockImplementation((run) => void judged.push(run))
    await clock.advance(2_100)
    expect(judged).toHaveLength(1)
    client.sendRaw(encode(plainConnect('ann'), 5))
    await Promise.resolve()
    defer.mockRestore()
    for (const run of judged) run()
    await clock.settle()
    expect(pair.client.socketEnd).toBeUndefined()
    expect(engine.connections.list().map(({ uid }) => uid)).toEqual(['ann'])
  })

  test('half a CONNECT does not win more time', async () => {
    const { engine, clock } = await stage()
    const { pair, client } = openSocket(engine)
    const connect = encode(plainConnect('ann'), 5)
    for (const byte of connect.subarray(0, 10)) {
      client.sendRaw(Uint8Array.of(byte))
      await clock.advance(190)
    }
    await clock.advance(200)
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
  })

  const others: Frame[] = [
    SEND,
    { type: FrameType.RECVACK, flags: 0, messageID: '1', messageSeq: 1 },
    { type: FrameType.PING },
    { type: FrameType.DISCONNECT, flags: 0, reasonCode: 0, reason: '' },
    { type: FrameType.SUB, flags: 0, setting: 0, subNo: '', ...TEAM, action: 0, param: '' },
    { type: FrameType.EVENT, flags: 0, id: '', eventType: '', timestampMs: 0n, data: Buffer.alloc(0) },
    ...FROM_SERVERS,
  ]

  test.each(others.map((frame) => [nameOf(frame), frame] as const))('%s as the first frame closes, unanswered, and nothing behind it is read', async (_name, frame) => {
    const asked = vi.fn(() => ({ ok: true as const }))
    const { engine, clock } = await stage({ ...PLAIN, tokenVerifier: asked })
    const refused = heard(engine, 'connectionRefused')
    const { pair, client } = openSocket(engine)
    client.sendRaw(Buffer.concat([encode(frame, 5), encode(plainConnect('ann'), 5)]))
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1002 })
    expect(pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'protocol' }])
    expect(asked).not.toHaveBeenCalled()
  })

  test('bytes that are no frame close as malformed', async () => {
    const { engine, clock } = await stage()
    const refused = heard(engine, 'connectionRefused')
    const { pair, client } = openSocket(engine)
    client.sendRaw(Uint8Array.of(0xf0, 0x00))
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1002 })
    expect(refused).toMatchObject([{ cause: 'malformed', detail: 'unknown-type' }])
  })

  test('a frame that announces more than maxFrameBytes closes before its body comes', async () => {
    const { engine, clock } = await stage({ limits: { maxFrameBytes: 256 } })
    const refused = heard(engine, 'connectionRefused')
    const { pair, client } = openSocket(engine)
    client.sendRaw(Uint8Array.of(0x10, 0x81, 0x02)) // 257
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1009 })
    expect(refused).toMatchObject([{ cause: 'malformed', detail: 'too-large' }])
  })

  test.each(['{"method":"connect"}', ' \r\n\t{', '{'])('JSON (%j) is closed as not supported', async (text) => {
    const { engine, clock } = await stage()
    const refused = heard(engine, 'connectionRefused')
    const { pair, client } = openSocket(engine)
    client.sendRaw(Buffer.from(text))
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1003 })
    expect(pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'protocol' }])
  })

  test('white space alone decides nothing: a CONNECT behind it is served, and silence behind it is not waited for longer', async () => {
    const { engine, clock } = await stage()
    const served = openSocket(engine)
    const silent = openSocket(engine)
    for (const { client } of [served, silent]) client.sendRaw(Buffer.from(' \n'))
    await clock.settle()
    expect((await served.client.connect({ uid: 'ann' })).reasonCode).toBe(ReasonCode.Success)
    await clock.advance(2_100)
    expect(silent.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
    expect(served.pair.client.socketEnd).toBeUndefined()
  })

  test('a socket that leaves is told once and keeps no timer', async () => {
    const { engine, clock } = await stage({ limits: { sweepIntervalMs: 0 } })
    const refused = heard(engine, 'connectionRefused')
    const { pair } = openSocket(engine)
    pair.client.end()
    await clock.settle()
    await clock.advance(300)
    expect(refused).toMatchObject([{ cause: 'peer' }])
    expect(clock.pendingTimerCount).toBe(0)
  })
})

describe('while the token is checked', () => {
  test('a verifier that hangs is given up after authTimeoutMs: CONNACK 15, then the end', async () => {
    const { asked, tokenVerifier, answer } = heldVerifier()
    const { engine, clock } = await stage({ tokenVerifier })
    const refused = heard(engine, 'connectionRefused')
    const { pair, client } = openSocket(engine)
    const connack = client.connect({ uid: 'ann' })
    await clock.advance(4_900)
    expect(pair.sentChunks).toEqual([])
    await clock.advance(300)
    expect((await connack).reasonCode).toBe(ReasonCode.SystemError)
    expect(typesOf(client)).toEqual([FrameType.CONNACK])
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1008 })
    expect(refused).toMatchObject([{ cause: 'auth-timeout', uid: 'ann', reasonCode: ReasonCode.SystemError }])
    expect(asked[0]!.signal.aborted).toBe(true)
    answer.resolve({ ok: true }) // too late to come in
    await clock.settle()
    expect(engine.connections.list()).toEqual([])
  })

  test('a PING is answered after CONNACK, which is the first frame', async () => {
    const { tokenVerifier, answer } = heldVerifier()
    const { engine, clock } = await stage({ tokenVerifier })
    const { client } = openSocket(engine)
    const connack = client.connect({ uid: 'ann' })
    client.write({ type: FrameType.PING })
    client.write({ type: FrameType.PING })
    await clock.settle()
    expect(client.received).toEqual([])
    answer.resolve({ ok: true })
    await connack
    await clock.settle()
    expect(typesOf(client)).toEqual([FrameType.CONNACK, FrameType.PONG])
  })

  test('a SEND is dropped: no SENDACK, nothing stored, also in the same chunk as CONNECT', async () => {
    const { tokenVerifier, answer } = heldVerifier()
    const { engine, clock } = await stage({ ...PLAIN, tokenVerifier })
    const { client } = openSocket(engine)
    client.sendRaw(Buffer.concat([encode(plainConnect('ann'), 5), encode(SEND, 5)]))
    client.write(SEND)
    await clock.settle()
    answer.resolve({ ok: true })
    await clock.settle()
    await client.ping()
    expect(typesOf(client)).toEqual([FrameType.CONNACK, FrameType.PONG])
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    const sendack = client.next(FrameType.SENDACK)
    client.write(SEND) // again after CONNACK, as SDKs do
    expect(await sendack).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
  })

  test('a second CONNECT closes', async () => {
    const { tokenVerifier, answer } = heldVerifier()
    const { engine, clock } = await stage({ ...PLAIN, tokenVerifier })
    const refused = heard(engine, 'connectionRefused')
    const { pair, client } = openSocket(engine)
    client.write(plainConnect('ann'))
    client.write(plainConnect('bob'))
    answer.resolve({ ok: true })
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1002 })
    expect(pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'protocol' }])
  })

  test.each(FROM_SERVERS.map((frame) => [nameOf(frame), frame] as const))('%s closes, unanswered, as at any other time', async (_name, frame) => {
    const { tokenVerifier, answer } = heldVerifier()
    const { engine, clock } = await stage({ ...PLAIN, tokenVerifier })
    const refused = heard(engine, 'connectionRefused')
    const { pair, client } = openSocket(engine)
    client.sendRaw(Buffer.concat([encode(plainConnect('ann'), 5), encode(frame, 5)]))
    await clock.settle()
    answer.resolve({ ok: true })
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1002 })
    expect(pair.sentChunks).toEqual([])
    expect(refused).toMatchObject([{ cause: 'protocol', uid: 'ann' }])
  })

  test.each(['DISCONNECT', 'the end of the socket'])('%s ends it, and a good answer that comes later opens nothing', async (how) => {
    const { tokenVerifier, answer, asked } = heldVerifier()
    const { engine, clock } = await stage({ tokenVerifier })
    const { pair, client } = openSocket(engine)
    const connected = heard(engine, 'connected')
    void client.connect({ uid: 'ann' }).catch(() => undefined)
    await clock.settle()
    if (how === 'DISCONNECT') client.write({ type: FrameType.DISCONNECT, flags: 0, reasonCode: 0, reason: '' })
    else pair.client.destroy()
    await clock.settle()
    expect(asked[0]!.signal.aborted).toBe(true)
    answer.resolve({ ok: true })
    await clock.settle()
    expect(connected).toEqual([])
    expect(engine.connections.list()).toEqual([])
  })

  test('two logins of one user do not wait for each other', async () => {
    const slow = deferred<VerifyTokenResult>()
    const { engine } = await stage({ tokenVerifier: ({ token }) => (token === 'slow' ? slow.promise : { ok: true }) })
    const first = openSocket(engine)
    void first.client.connect({ uid: 'ann', token: 'slow', deviceID: 'a' }).catch(() => undefined)
    const second = openSocket(engine)
    expect((await second.client.connect({ uid: 'ann', deviceID: 'b' })).reasonCode).toBe(ReasonCode.Success)
  })
})

describe('an open connection', () => {
  test('is closed after idleTimeoutMs without a byte, not before, and without a word', async () => {
    const { engine, clock, connect } = await stage()
    const disconnected = heard(engine, 'disconnected')
    const { pair, client } = await connect('ann')
    await clock.advance(179_900)
    expect(pair.client.socketEnd).toBeUndefined()
    await clock.advance(300)
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
    expect(typesOf(client)).toEqual([FrameType.CONNACK])
    expect(disconnected).toMatchObject([{ uid: 'ann', cause: 'idle' }])
  })

  test('is kept by what is readable when idleTimeoutMs has passed: it may be the server that was silent', async () => {
    const { engine, clock, connect } = await stage()
    const { pair, client } = await connect('ann')
    const { pair: silent } = await connect('bob')
    const judged: (() => void)[] = []
    const defer = vi.spyOn(clock, 'defer').mockImplementation((run) => void judged.push(run))
    await clock.advance(180_200)
    client.sendRaw(Uint8Array.of(0x70))
    await Promise.resolve()
    defer.mockRestore()
    for (const run of judged) run()
    await clock.settle()
    expect(pair.client.socketEnd).toBeUndefined()
    expect(silent.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
    expect(engine.connections.list().map(({ uid }) => uid)).toEqual(['ann'])
    await clock.advance(180_200)
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
  })

  test('is kept by any inbound byte, also by the beginning of a frame', async () => {
    const { clock, connect } = await stage()
    const { pair, client } = await connect('ann')
    await clock.advance(170_000)
    client.sendRaw(Uint8Array.of(0x30)) // the first byte of a SEND
    await clock.advance(170_000)
    expect(pair.client.socketEnd).toBeUndefined()
    await clock.advance(10_300)
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
  })

  test('is not kept by what the server sends', async () => {
    const { engine, clock, connect } = await stage()
    const { pair } = await connect('bob', { autoAck: false })
    await clock.advance(170_000)
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('hi') })
    await clock.advance(10_300)
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
  })

  test('answers PING with one PONG', async () => {
    const { connect } = await stage()
    const { client } = await connect('ann')
    await client.ping()
    expect(typesOf(client)).toEqual([FrameType.CONNACK, FrameType.PONG])
  })

  test('answers SUB with SUBACK 23 and its own words, and stays', async () => {
    const { connect } = await stage()
    const { client } = await connect('ann')
    client.write({ type: FrameType.SUB, flags: 0, setting: 0, subNo: 'sub-7', channelID: 'news', channelType: 6, action: 1, param: 'p' })
    expect(await client.next(FrameType.SUBACK)).toMatchObject({
      subNo: 'sub-7', channelID: 'news', channelType: 6, action: 1, reasonCode: ReasonCode.NotSupportChannelType,
    })
    await client.ping()
  })

  test('ignores EVENT', async () => {
    const { connect } = await stage()
    const { client } = await connect('ann')
    client.write({ type: FrameType.EVENT, flags: 0, id: '1', eventType: 'x', timestampMs: 1n, data: Buffer.from('{}') })
    await client.ping()
    expect(typesOf(client)).toEqual([FrameType.CONNACK, FrameType.PONG])
  })

  test('ends with DISCONNECT, as the client wished', async () => {
    const { engine, clock, connect } = await stage()
    const disconnected = heard(engine, 'disconnected')
    const { pair, client } = await connect('ann')
    client.write({ type: FrameType.DISCONNECT, flags: 0, reasonCode: 0, reason: 'bye' })
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1000 })
    expect(disconnected).toMatchObject([{ uid: 'ann', cause: 'client' }])
    expect(engine.connections.list()).toEqual([])
  })

  test.each([['CONNECT', plainConnect('ann')] as const, ...FROM_SERVERS.map((frame) => [nameOf(frame), frame] as const)])(
    '%s closes it, and what is behind it in the same chunk is not read',
    async (_name, frame) => {
      const { engine, clock, connect } = await stage(PLAIN)
      const disconnected = heard(engine, 'disconnected')
      const { pair, client } = await connect('ann', { plaintext: true })
      client.sendRaw(Buffer.concat([encode(frame, 5), encode(SEND, 5)]))
      await clock.settle()
      expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1002 })
      expect(disconnected).toMatchObject([{ cause: 'protocol' }])
      expect(typesOf(client)).toEqual([FrameType.CONNACK])
      expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    },
  )

  test('closes when its bytes are no frame, and the other connections stay', async () => {
    const { engine, clock, connect } = await stage()
    const disconnected = heard(engine, 'disconnected')
    const ann = await connect('ann')
    const bob = await connect('bob')
    ann.client.sendRaw(Uint8Array.of(0x30, 0xff, 0xff, 0xff, 0xff))
    await clock.settle()
    expect(ann.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1002 })
    expect(disconnected).toMatchObject([{ uid: 'ann', cause: 'malformed' }])
    await bob.client.ping()
  })
})

describe('a socket that does not behave', () => {
  function badSocket(overrides: Record<string, unknown> = {}) {
    const calls: string[] = []
    const socket = {
      framing: 'stream' as const,
      bufferedBytes: 0,
      send: (): boolean => (calls.push('send'), true),
      close: (code?: number): void => void calls.push(`close ${code}`),
      destroy: (): void => void calls.push('destroy'),
      ...overrides,
    }
    return { socket, calls }
  }

  test('and never confirms its close is destroyed after closeTimeoutMs, and its place is free then', async () => {
    const { engine, clock } = await stage({ limits: { maxConnections: 1 } })
    const { socket, calls } = badSocket()
    engine.accept(socket).receive(Uint8Array.of(0xf0))
    await clock.settle()
    expect(calls).toEqual(['close 1002'])
    await clock.advance(4_900)
    expect(calls).toEqual(['close 1002'])
    expect(openSocket(engine).pair.server).toBeDefined()
    await clock.advance(200)
    expect(calls).toEqual(['close 1002', 'destroy'])
    const { client } = openSocket(engine)
    expect((await client.connect({ uid: 'ann' })).reasonCode).toBe(ReasonCode.Success)
    await clock.advance(20_000)
    expect(calls).toEqual(['close 1002', 'destroy'])
  })

  test('and confirms its close is not destroyed', async () => {
    const { engine, clock } = await stage({ limits: { sweepIntervalMs: 0 } })
    const { socket, calls } = badSocket()
    const events = engine.accept(socket)
    events.receive(Uint8Array.of(0xf0))
    await clock.settle()
    events.closed()
    await clock.advance(20_000)
    expect(calls).toEqual(['close 1002'])
    expect(clock.pendingTimerCount).toBe(0)
  })

  test('and cannot be destroyed is closed once more', async () => {
    const { engine, clock } = await stage()
    const { socket, calls } = badSocket({ destroy: undefined })
    engine.accept(socket).receive(Uint8Array.of(0xf0))
    await clock.advance(5_200)
    expect(calls).toEqual(['close 1002', 'close 1001'])
  })

  test.each(['send', 'close', 'destroy', 'bufferedBytes', 'cork', 'uncork'])('and throws from %s takes nobody with it', async (method) => {
    const { engine, clock, connect, errors } = await stage({ plaintext: 'allow' })
    const throws = (): never => {
      throw new Error(`${method} is broken`)
    }
    const { socket } = badSocket({ framing: 'message' })
    Object.defineProperty(socket, method, method === 'bufferedBytes' ? { get: throws } : { value: throws })
    const bob = await connect('bob')
    const events = engine.accept(socket)
    expect(() => events.receive(encode(plainConnect('ann'), 5))).not.toThrow()
    await clock.settle()
    await engine.messages.send({ ...TEAM, fromUID: 'cat', payload: Buffer.from('hi') })
    expect((await bob.client.nextRecv()).text).toBe('hi')
    expect(() => events.receive(Uint8Array.of(0xf0))).not.toThrow()
    await clock.advance(10_000)
    expect(() => {
      events.drained()
      events.closed()
    }).not.toThrow()
    await clock.settle()
    expect(engine.connections.list({ uid: 'ann' })).toEqual([])
    expect(errors).toEqual([])
    await bob.client.ping()
  })

  test.each(['pause', 'resume'])('and throws from %s takes nobody with it', async (method) => {
    const answer = deferred<{ code: number }>()
    let asked = 0
    const { engine, clock, connect } = await stage({
      plaintext: 'allow',
      webhook: { beforeSend: () => (asked++ === 0 ? answer.promise : { code: 0 }) },
      limits: { maxQueuedPerUser: 1 },
    })
    const { socket } = badSocket({ [method]: () => { throw new Error(`${method} is broken`) } })
    const events = engine.accept(socket)
    events.receive(encode(plainConnect('ann'), 5))
    await clock.settle()
    const bob = await connect('bob')
    expect(() => events.receive(encode(SEND, 5))).not.toThrow()
    await clock.settle()
    expect(() => events.receive(encode({ ...SEND, clientSeq: 2, clientMsgNo: 'no-2' }, 5))).not.toThrow() // at the bound
    answer.resolve({ code: 0 })
    await clock.settle()
    expect(await bob.client.send({ ...TEAM, payload: 'still here' })).toMatchObject({ reasonCode: ReasonCode.Success })
    await clock.settle()
  })

  test('and says closed twice, or speaks after it, is told once', async () => {
    const { engine, clock } = await stage(PLAIN)
    const disconnected = heard(engine, 'disconnected')
    const { socket, calls } = badSocket()
    const events = engine.accept(socket)
    events.receive(encode(plainConnect('ann'), 5))
    await clock.settle()
    events.closed()
    events.closed()
    const before = calls.length
    events.receive(encode(SEND, 5))
    events.drained()
    await clock.settle()
    expect(disconnected).toMatchObject([{ uid: 'ann', cause: 'peer' }])
    expect(calls).toHaveLength(before)
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })
})

describe('an engine that is not running', () => {
  test.each(['before start', 'after close'])('%s closes the socket with 1013 and ignores what it says', async (when) => {
    const { IMEngine, allowAnyToken } = await import('imengine')
    const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
    if (when === 'after close') {
      await engine.start()
      await engine.close()
    }
    const refused = heard(engine, 'connectionRefused')
    const pair = socketPair({ framing: 'message' })
    const events = engine.accept(pair.server, { remoteAddress: '10.0.0.1' })
    pair.attach(events)
    events.receive(encode(plainConnect('ann'), 5))
    events.drained()
    events.closed()
    expect(await pair.client.closed).toEqual({ by: 'server', code: 1013, reason: 'try again later' })
    const detail = `the engine is not running${when === 'before start' ? ': start() has not been called' : ''}`
    expect(refused).toMatchObject([{ cause: 'limit', remoteAddress: '10.0.0.1', detail }])
    expect(pair.sentChunks).toEqual([])
  })

  test('does not throw when the socket cannot be closed', async () => {
    const { IMEngine, allowAnyToken } = await import('imengine')
    const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
    const close = (): never => {
      throw new Error('broken')
    }
    expect(() => engine.accept({ send: () => true, close, bufferedBytes: 0 })).not.toThrow()
  })
})

describe("a host's logger that throws", () => {
  const broken = (): never => {
    throw new Error('disk full')
  }
  const logger: Logger = { debug: broken, info: broken, warn: broken, error: broken }

  test('ends no other time-out and no answer', async () => {
    const { engine, clock, connect, errors } = await stage({ logger, tokenVerifier: () => ({ ok: true, deviceLevel: DeviceLevel.Slave }) })
    engine.use('EventOnSend', function breaks(ctx) {
      if (Buffer.from(ctx.payload).toString() === 'bad') throw new Error('boom')
    })
    const first = openSocket(engine)
    const second = openSocket(engine)
    await clock.advance(2_200)
    expect([first, second].map(({ pair }) => pair.client.socketEnd?.by)).toEqual(['server', 'server'])
    const { client } = await connect('ann')
    const answers = [client.send({ ...TEAM, payload: 'bad' }), client.send({ ...TEAM, payload: 'good' })]
    await clock.settle()
    expect((await Promise.all(answers)).map(({ reasonCode }) => reasonCode)).toEqual([ReasonCode.SystemError, ReasonCode.Success])
    expect(errors.map((error) => error.code)).toEqual(['IM_HANDLER_FAILED'])
  })
})
