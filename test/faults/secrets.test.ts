import { createPrivateKey, createPublicKey, diffieHellman, hash } from 'node:crypto'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { IMEngine, IMError, memoryStorage, ReasonCode, refuse, type IMEngineOptions, type Storage } from 'imengine'
import { encode, FrameType, LATEST_VERSION, sealSend, SessionCipher } from 'imengine/protocol'
import { recordingLogger } from 'imengine/testing'
import { heard, openSocket, plainSend } from '../connection/raw.ts'
import type { Facts } from '../../src/contracts/facts.ts'
import { deferred, stage, storageWith, TEAM, type Stage } from '../support.ts'
import { SecretFinder } from './secret-finder.ts'

const TOKEN = 'Tk-9f3a1c77e2b04d5-token'
const PAYLOAD = 'Pl-51be08d2c6a94f7-payload'
const REPLACED = 'Np-77ac19e3b5d20f8-payload'
/** A client's private key, so that the test knows what the two sides agree on. */
const SEED = Buffer.from('client-private-key-of-32-bytes!!')

const privateKey = createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), SEED]), format: 'der', type: 'pkcs8' })
const clientKey = Buffer.from(createPublicKey(privateKey).export({ format: 'jwk' }).x!, 'base64url').toString('base64')

/** Everything that the engine tells, by every fact. What a fact carries on purpose, the payload of a message, is left out. */
function listen({ engine }: Stage): () => unknown[] {
  const names: Record<keyof Facts, true> = {
    connected: true, disconnected: true, connectionRefused: true, messageStored: true, messageRefused: true, offlineMessage: true,
    messageRevised: true, slowConsumer: true, undelivered: true, presenceChanged: true, isolated: true, webhookGivenUp: true, error: true,
  }
  const lists = (Object.keys(names) as (keyof Facts)[]).map((name) => heard(engine, name))
  return () => lists.flat().map(withoutPayloads)
}

function withoutPayloads(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutPayloads)
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, name === 'payload' ? 'left out' : withoutPayloads(part)]))
}

/** An engine that everything is heard of, and a client whose keys are known. */
async function scene(options: Partial<IMEngineOptions> = {}) {
  const logger = recordingLogger()
  const made = await stage({ logger, tokenVerifier: ({ token }) => ({ ok: token === TOKEN }), ...options })
  const told = listen(made)
  const seen: unknown[] = []
  const thrown: unknown[] = []
  /** What a call of the host's throws or rejects with. */
  const attempt = async (call: () => unknown): Promise<void> => {
    try {
      await call()
    } catch (error) {
      thrown.push(error)
    }
  }
  const { engine, clock } = made

  /** CONNECT with the known key; the keys once they are agreed upon. */
  async function login(uid: string, token = TOKEN) {
    const { pair, client } = openSocket(engine, { remoteAddress: '10.0.0.1' })
    client.write({
      type: FrameType.CONNECT, flags: 0, version: LATEST_VERSION, deviceFlag: 0, deviceID: 'phone', uid, token, clientTimestampMs: 0n, clientKey,
    })
    await clock.settle()
    const connack = client.received[0]
    if (connack?.type !== FrameType.CONNACK || connack.reasonCode !== ReasonCode.Success) return { pair, client, secrets: {}, send: () => undefined }
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x: Buffer.from(connack.serverKey, 'base64').toString('base64url') }, format: 'jwk' })
    const shared = diffieHellman({ privateKey, publicKey })
    const aesKey = hash('md5', shared.toString('base64')).slice(0, 16)
    const cipher = new SessionCipher({ key: aesKey, iv: connack.salt })
    let count = 0
    const send = (payload = PAYLOAD): void => {
      count++
      client.write(sealSend({ ...plainSend(payload, `${uid}-${count}`), clientSeq: count }, cipher))
    }
    return { pair, client, send, secrets: { serverKey: connack.serverKey, salt: connack.salt, sharedKey: shared.toString('base64'), aesKey } }
  }

  /** Look at everything that was told, thrown and logged so far. */
  function find(secrets: Readonly<Record<string, string>> = {}): SecretFinder {
    const finder = new SecretFinder({ TOKEN, PAYLOAD, REPLACED, clientPrivateKey: SEED.toString(), clientKey, ...secrets })
    for (const shown of [...logger.lines, ...told(), ...seen, ...thrown, ...made.errors, engine, ...engine.connections.list()]) finder.show(shown)
    return finder
  }
  return { ...made, logger, seen, thrown, attempt, login, find }
}

/** A host's error that quotes what the host was given. */
function indiscreet(...quoted: string[]): Error {
  return Object.assign(new TypeError(`cannot handle ${quoted.join(' and ')}`), { code: 'E_HOST', given: quoted })
}

describe('a token, a key or a payload appears in no log line, no error and no fact’s words', () => {
  test('when the token is wrong, the verifier quotes it, and CONNECT is bad in other ways', async () => {
    let verify: (token: string) => unknown = () => ({ ok: false })
    const { engine, clock, errors, login, logger, find } = await scene({ tokenVerifier: (({ token }: { token: string }) => verify(token)) as never })
    const answers: (typeof verify)[] = [
      () => ({ ok: false }),
      (token) => { throw indiscreet(token, clientKey) },
      (token) => Promise.reject(indiscreet(token)),
      (token) => { throw token }, // eslint-disable-line @typescript-eslint/only-throw-error
      (token) => ({ ok: token }),
      (token) => ({ ok: false, reason: token }),
      (token) => ({ token }),
      (token) => { throw Object.assign(new Error(token), { name: `Error of ${token}`, code: `no ${token}` }) },
      (token) => { throw new Proxy(new Error(token), { get: () => { throw new Error(token) } }) },
    ]
    for (const [index, answer] of answers.entries()) {
      verify = answer
      await login(`u${index}`)
    }
    await login('a@b')
    verify = () => new Promise(() => undefined)
    void login('slow')
    await clock.advance(engine.limits.authTimeoutMs + 200)
    expect(errors.length).toBe(answers.length) // all but the plain no, and the one that hangs
    expect(logger.at('info').length).toBeGreaterThan(answers.length)
    expect(find().found).toEqual([])
  })

  test('when handlers throw it, refuse with it for a reason, and hang on it', async () => {
    const { engine, clock, errors, seen, login, find } = await scene({ limits: { stepTimeoutMs: 1_000 } })
    const ann = await login('ann')
    let fail: (text: string) => unknown = () => undefined
    engine.use('EventOnSend', function quoting(ctx) {
      seen.push(ctx.conn)
      return fail(Buffer.from(ctx.payload).toString()) as never
    })
    const failures: (typeof fail)[] = [
      (text) => { throw indiscreet(text) },
      (text) => Promise.reject(indiscreet(text)),
      (text) => { throw text }, // eslint-disable-line @typescript-eslint/only-throw-error
      (text) => text,
      (text) => ({ kind: 'refuse', reasonCode: text }),
      (text) => refuse(text as never),
      () => new Promise(() => undefined),
    ]
    for (const failure of failures) {
      fail = failure
      ann.send()
      await clock.advance(1_200)
    }
    for (const event of ['EventChannelDistribute', 'EventPushOnline', 'EventRecvAck'] as const) {
      engine.use(event, function quotingLater(ctx) {
        throw indiscreet(...('messages' in ctx ? ctx.messages : [ctx.message]).map(({ payload }) => Buffer.from(payload).toString()))
      })
      fail = () => undefined
      ann.send()
      await clock.settle()
    }
    engine.on('messageRefused', () => { throw indiscreet(PAYLOAD) })
    engine.on('error', () => { throw indiscreet(PAYLOAD) })
    ann.client.write(plainSend(PAYLOAD)) // not encrypted, on a connection that is
    await clock.settle()
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['IM_HANDLER_FAILED', 'IM_HANDLER_TIMEOUT', 'IM_LISTENER_FAILED']))
    expect(seen.length).toBeGreaterThan(failures.length)
    expect(find(ann.secrets).found).toEqual([])
  })

  test('when the webhook refuses, fails, answers nonsense, or puts another payload in its place', async () => {
    let answer: () => unknown = () => ({ code: 1, message: 'no' })
    const { clock, errors, login, find } = await scene({
      webhook: { beforeSend: (() => answer()) as never, notify: () => Promise.reject(indiscreet(PAYLOAD, REPLACED)) },
    })
    const ann = await login('ann')
    for (const next of [
      answer,
      () => { throw indiscreet(PAYLOAD) },
      () => PAYLOAD,
      () => ({ code: PAYLOAD }),
      () => ({ code: 0, newPayload: REPLACED }),
      () => ({ code: 0, newPayload: Buffer.alloc(40_000, REPLACED) }),
      () => ({ code: 0, newPayload: Buffer.from(REPLACED), extra: { note: REPLACED } }),
    ]) {
      answer = next
      ann.send()
      await clock.settle()
    }
    await clock.advance(10_000)
    expect(errors.length).toBeGreaterThanOrEqual(5)
    expect(find(ann.secrets).found).toEqual([])
  })

  test('when the storage fails, breaks its contract or hangs, for clients and for the host', async () => {
    const base = memoryStorage()
    let fail: (() => unknown) | undefined
    const quoting = <T extends object>(part: T): T =>
      new Proxy(part, {
        get: (target, name) => {
          const member: unknown = Reflect.get(target, name)
          return typeof member === 'function' ? (...args: unknown[]): unknown => (fail === undefined ? (member.bind(target) as (...given: unknown[]) => unknown)(...args) : fail()) : member
        },
      })
    const storage: Storage = { ...storageWith(base, {}), messages: quoting(base.messages), channels: quoting(base.channels), cursors: quoting(base.cursors) }
    const { engine, clock, errors, attempt, thrown, login, find } = await scene({ storage, limits: { stepTimeoutMs: 500, subscriberCacheMs: 0 } })
    const ann = await login('ann')
    const payload = Buffer.from(PAYLOAD)
    const stored = await engine.messages.send({ ...TEAM, fromUID: 'ann', payload })
    for (const failure of [
      () => { throw indiscreet(PAYLOAD, TOKEN) },
      () => Promise.reject(indiscreet(PAYLOAD, TOKEN)),
      () => [[{ status: 'stored', messageID: 'abc', messageSeq: 1 }]],
      () => [[{ status: 'fine', messageID: '1', messageSeq: 1 }]],
      () => new Promise(() => undefined),
    ]) {
      fail = failure
      ann.send()
      void login('bob')
      void attempt(() => engine.messages.send({ ...TEAM, fromUID: 'ann', payload }))
      void attempt(() => engine.messages.edit(stored.messageID, payload))
      void attempt(() => engine.messages.recall(stored.messageID))
      await clock.advance(1_500)
    }
    fail = undefined
    expect(errors.length).toBeGreaterThan(5)
    expect(thrown.filter((error) => error instanceof IMError).length).toBeGreaterThan(2)
    // What a host's own storage throws at the host who calls it is no word of the engine's.
    const engines = thrown.filter((error) => error instanceof IMError)
    thrown.splice(0, thrown.length, ...engines)
    expect(find(ann.secrets).found).toEqual([])
  })

  test('when frames are malformed, or well-formed and in the wrong place', async () => {
    const { engine, clock, login, find } = await scene()
    const disconnected = heard(engine, 'disconnected')
    const connect = encode({
      type: FrameType.CONNECT, flags: 0, version: LATEST_VERSION, deviceFlag: 0, deviceID: 'phone', uid: 'ann', token: TOKEN, clientTimestampMs: 0n, clientKey,
    }, LATEST_VERSION)
    const send = encode(plainSend(PAYLOAD), LATEST_VERSION)
    const broken: Uint8Array[] = [
      Buffer.concat([Uint8Array.of(0x10, connect.length - 5), connect.subarray(2, -3)]),
      Buffer.concat([send, connect]),
      Buffer.concat([connect, connect]),
      Buffer.from(`{"method":"connect","params":{"token":"${TOKEN}","payload":"${PAYLOAD}"}}`),
      Buffer.concat([Uint8Array.of(0xf0), Buffer.from(TOKEN)]),
      Buffer.concat([Uint8Array.of(0x10, 0xff, 0xff, 0xff, 0x7f), Buffer.from(TOKEN)]),
      Buffer.concat([connect.subarray(0, 14), Uint8Array.of(0xff, 0xfe), connect.subarray(16)]),
    ]
    for (const bytes of broken) {
      const { client } = await login('cat')
      client.sendRaw(bytes)
    }
    await clock.settle()
    expect(disconnected.filter(({ cause }) => cause === 'malformed' || cause === 'protocol').length).toBeGreaterThanOrEqual(5)
    for (const bytes of broken) openSocket(engine).client.sendRaw(bytes)
    await clock.settle()
    expect(find().found).toEqual([])
  })

  test('when a host gives it in the wrong place or as the wrong type', async () => {
    const { engine, attempt, thrown, find } = await scene()
    const wrong = [PAYLOAD, [PAYLOAD], { text: PAYLOAD }, Buffer.alloc(40_000, PAYLOAD), 7]
    const stored = await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('x') })
    for (const payload of wrong) {
      await attempt(() => engine.messages.send({ ...TEAM, fromUID: 'ann', payload: payload as never }))
      await attempt(() => engine.messages.edit(stored.messageID, payload as never))
    }
    await attempt(() => engine.messages.send(PAYLOAD as never))
    await attempt(() => refuse(PAYLOAD as never))
    for (const option of ['tokenVerifier', 'token', 'authToken', 'secret', 'password', 'privateKey']) {
      await attempt(() => new IMEngine({ tokenVerifier: () => ({ ok: true }), [option]: TOKEN }))
    }
    expect(thrown).toHaveLength(2 * wrong.length + 8)
    for (const error of thrown) expect(error).toBeInstanceOf(TypeError)
    expect(String(thrown[0])).toBe('TypeError: imengine: payload must be a Uint8Array of at most 32767 bytes, got a string')
    expect(find().found).toEqual([])
  })

  test('when nothing fails, and when everything is printed that handlers and facts are given of a connection', async () => {
    const { engine, clock, login, seen, find } = await scene()
    const infos = heard(engine, 'connected')
    engine.use('EventOnSend', function look(ctx) {
      seen.push(ctx.conn)
    })
    engine.use('EventPing', function look(ctx) {
      seen.push(ctx.conn)
    })
    engine.use('EventConnClose', function look(ctx) {
      seen.push(ctx.conn)
    })
    const ann = await login('ann')
    const bob = await login('bob')
    ann.send()
    ann.client.write({ type: FrameType.PING })
    await clock.settle()
    expect(bob.client.received.map(({ type }) => type)).toContain(FrameType.RECV)
    ann.pair.client.destroy()
    await clock.settle()
    seen.push(...infos, ...engine.connections.list({ uid: 'bob' }))
    expect(seen.length).toBeGreaterThan(4)
    expect(find({ ...ann.secrets, bobsKey: (bob.secrets as { aesKey: string }).aesKey }).found).toEqual([])
  })

  test('when the engine closes in the middle of it', async () => {
    const answer = deferred<{ code: number }>()
    const { engine, clock, errors, login, find } = await scene({ webhook: { beforeSend: () => answer.promise }, limits: { webhookTimeoutMs: 60_000 } })
    const ann = await login('ann')
    for (let count = 0; count < 3; count++) ann.send()
    await clock.settle()
    const closing = engine.close({ drainMs: 0 })
    await clock.advance(10_000)
    await closing
    expect(errors.map(({ code }) => code)).toContain('IM_CLOSE_TIMEOUT')
    expect(find(ann.secrets).found).toEqual([])
  })
})

describe('an IMError', () => {
  test('is printed with what its cause is and where it was thrown, and without the words of the cause', () => {
    const error = new IMError('IM_STORE_UNAVAILABLE', { cause: indiscreet('one line\n    at a-token (and another)'), context: { uid: 'ann' } })
    const printed = inspect(error)
    expect(printed).toMatch(/^IMError: the message store did not answer\n {4}at /)
    expect(printed).toContain("uid: 'ann'")
    expect(printed).toContain('TypeError E_HOST')
    expect(printed).toContain('indiscreet')
    expect(printed).not.toContain('one line')
    expect(printed).not.toContain('a-token')
    expect((error.cause as Error).message).toContain('one line') // for whoever asks for it
  })

  test.each([
    ['a text', 'a-token', 'a string'],
    ['an object', { token: 'a-token' }, 'a Object'],
    ['null', null, 'null'],
    ['an error whose name and code say too much', Object.assign(new Error('x'), { name: 'the a-token', code: 'no a-token' }), 'an error'],
  ])('caused by %s is printed without it', (_what, cause, words) => {
    const printed = inspect(new IMError('IM_STORE_UNAVAILABLE', { cause }))
    expect(printed).toContain(`cause: '${words}`)
    expect(printed).not.toContain('a-token')
  })
})

describe('the finder of secrets', () => {
  test.each<[string, (secret: string) => unknown]>([
    ['as it is', (secret) => `x ${secret} y`],
    ['in hex', (secret) => Buffer.from(secret).toString('hex')],
    ['in a buffer that is printed', (secret) => ({ deep: { bytes: Buffer.from(`ab${secret}`) } })],
    ['in an array of bytes', (secret) => ({ bytes: Uint8Array.from(Buffer.from(secret)) })],
    ['in base64', (secret) => Buffer.from(secret).toString('base64')],
    ['in base64 behind one byte', (secret) => Buffer.from(`a${secret}b`).toString('base64')],
    ['in base64 behind two bytes', (secret) => Buffer.from(`ab${secret}c`).toString('base64url')],
    ['in the message of an error', (secret) => new Error(secret)],
    ['in the cause of an error', (secret) => new Error('x', { cause: new Error(secret) })],
  ])('finds one %s', (_how, hide) => {
    const finder = new SecretFinder({ it: TOKEN })
    finder.show(hide('something else'))
    expect(finder.found).toEqual([])
    finder.show(hide(TOKEN))
    expect(finder.found.length).toBeGreaterThan(0)
  })
})
