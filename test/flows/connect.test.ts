import { describe, expect, it, test } from 'vitest'
import { allowAnyToken, DeviceFlag, DeviceLevel, IMEngine, ReasonCode, type VerifyTokenRequest } from 'imengine'
import { encode, FrameType } from 'imengine/protocol'
import { connectTestClient, socketPair, TestClient, type TestConnectOptions } from 'imengine/testing'
import { deferred, stage, type Stage } from '../support.ts'

/** CONNECT that may be refused: what came back, and how the socket ended. */
async function tryConnect({ engine }: Stage, options: TestConnectOptions) {
  const pair = socketPair()
  pair.attach(engine.accept(pair.server))
  const client = new TestClient(pair.client)
  const connack = await client.connect(options)
  return { client, pair, connack }
}

describe('EventConnect', () => {
  it('runs authenticate, loadSession and sendConnack, in that order', async () => {
    const { engine } = await stage()
    expect(engine.steps('EventConnect')).toEqual(['authenticate', 'loadSession', 'sendConnack'])
  })

  for (const version of [0, 1, 2, 3, 4, 5, 6, 255]) {
    it(`answers a client of version ${version} in the layout it expects`, async () => {
      const { connect, clock } = await stage()
      const { connack, client } = await connect('ann', { version, clientTimestampMs: 1_600_000_000_000n })
      expect(connack).toMatchObject({
        reasonCode: ReasonCode.Success,
        timeDiffMs: BigInt(clock.nowMs()) - 1_600_000_000_000n,
        nodeID: version > 3 ? '1' : '0',
      })
      expect(connack.serverVersion).toBe(version > 3 ? Math.min(version, 5) : undefined)
      expect(connack.salt).toMatch(/^[0-9a-zA-Z]{16}$/)
      expect(client.received[0]?.type).toBe(FrameType.CONNACK)
    })
  }

  it('gives every connection a key and a salt of its own', async () => {
    const { connect } = await stage()
    const first = await connect('ann')
    const second = await connect('bob')
    expect(first.connack.serverKey).not.toBe(second.connack.serverKey)
    expect(first.connack.salt).not.toBe(second.connack.salt)
  })

  it('gives the token verifier what the client and the host said, and refuses with its reason', async () => {
    const asked: VerifyTokenRequest[] = []
    const made = await stage({
      tokenVerifier: (request) => {
        asked.push(request)
        return request.token === 'banned' ? { ok: false, reason: ReasonCode.Ban } : { ok: false }
      },
    })
    const wrong = await tryConnect(made, { uid: 'ann', token: 'wrong', deviceFlag: DeviceFlag.Web, deviceID: 'd1' })
    expect(wrong.connack).toMatchObject({ reasonCode: ReasonCode.AuthFail, serverKey: '', salt: '' })
    expect(await wrong.pair.client.closed).toMatchObject({ by: 'server' })
    expect(asked[0]).toMatchObject({ uid: 'ann', token: 'wrong', deviceFlag: DeviceFlag.Web, deviceID: 'd1' })
    const banned = await tryConnect(made, { uid: 'ann', token: 'banned' })
    expect(banned.connack.reasonCode).toBe(ReasonCode.Ban)
    expect(made.engine.connections.list()).toEqual([])
  })

  it('answers SystemError, not AuthFail, when the verifier throws, rejects, answers nonsense or hangs', async () => {
    let behave: () => unknown = () => undefined
    const made = await stage({ tokenVerifier: () => behave() as never })
    for (const failing of [
      () => { throw new Error('down') },
      () => Promise.reject(new Error('down')),
      () => undefined,
      () => ({ ok: 'yes' }),
      () => ({ ok: false, reason: ReasonCode.Success }),
      () => ({ ok: false, reason: 999 }),
    ]) {
      behave = failing
      const { connack, pair } = await tryConnect(made, { uid: 'ann' })
      expect(connack.reasonCode).toBe(ReasonCode.SystemError)
      await pair.client.closed
    }
    expect(made.errors.map((error) => error.code)).toEqual(Array(6).fill('IM_VERIFIER_FAILED'))

    behave = () => new Promise(() => undefined)
    const hanging = tryConnect(made, { uid: 'ann' })
    await made.clock.advance(made.engine.limits.authTimeoutMs + 200)
    expect((await hanging).connack.reasonCode).toBe(ReasonCode.SystemError)
    expect((await (await hanging).pair.client.closed).by).toBe('server')
  })

  it('aborts the verification of a client that has left, and opens nothing when the answer comes late', async () => {
    const answer = deferred<{ ok: true }>()
    let signal: AbortSignal | undefined
    const made = await stage({ tokenVerifier: (request) => ((signal = request.signal), answer.promise) })
    const facts: string[] = []
    made.engine.on('connected', () => facts.push('connected'))
    made.engine.on('connectionRefused', ({ cause }) => facts.push(cause))
    const pair = socketPair()
    pair.attach(made.engine.accept(pair.server))
    const client = new TestClient(pair.client)
    const connecting = client.connect({ uid: 'ann' }).catch(() => 'gone')
    await made.clock.settle()
    pair.client.destroy()
    await made.clock.settle()
    expect(signal?.aborted).toBe(true)
    answer.resolve({ ok: true })
    await made.clock.settle()
    expect(await connecting).toBe('gone')
    expect(facts).toEqual(['peer'])
    expect(made.engine.connections.list()).toEqual([])
  })

  for (const uid of ['', '   ', 'a@b', 'a#b', 'a&b', 'a\u0000b', 'a\nb']) {
    it(`refuses the uid ${JSON.stringify(uid)} without asking the verifier`, async () => {
      let askedCount = 0
      const made = await stage({ tokenVerifier: () => (askedCount++, { ok: true }) })
      expect((await tryConnect(made, { uid })).connack.reasonCode).toBe(ReasonCode.AuthFail)
      expect(askedCount).toBe(0)
    })
  }

  it('refuses a banned user with 19', async () => {
    const made = await stage()
    await made.engine.users.setFlags('ann', { banned: true })
    expect((await tryConnect(made, { uid: 'ann' })).connack.reasonCode).toBe(ReasonCode.Ban)
    await made.engine.users.setFlags('ann', { banned: false })
    expect((await tryConnect(made, { uid: 'ann' })).connack.reasonCode).toBe(ReasonCode.Success)
  })

  it('refuses an empty client key with 21, unless plaintext is allowed', async () => {
    const strict = await stage()
    expect((await tryConnect(strict, { uid: 'ann', plaintext: true })).connack.reasonCode).toBe(ReasonCode.ClientKeyIsEmpty)
    const open = await stage({ plaintext: 'allow' })
    const { connack } = await tryConnect(open, { uid: 'ann', plaintext: true })
    expect(connack).toMatchObject({ reasonCode: ReasonCode.Success, serverKey: '', salt: '' })
  })

  it('refuses a bad client key with 2, after the token and not before it', async () => {
    const asked: string[] = []
    const made = await stage({ tokenVerifier: ({ token }) => (asked.push(token), { ok: token === 'good' }) })
    const pair = socketPair()
    pair.attach(made.engine.accept(pair.server))
    const client = new TestClient(pair.client)
    const clientKey = Buffer.alloc(32).toString('base64') // the point of order one
    const { uid, deviceID } = { uid: 'ann', deviceID: 'd' }
    client.write({ type: FrameType.CONNECT, flags: 0, version: 5, deviceFlag: 0, deviceID, uid, token: 'good', clientTimestampMs: 0n, clientKey })
    expect((await client.next(FrameType.CONNACK)).reasonCode).toBe(ReasonCode.AuthFail)
    expect(asked).toEqual(['good'])
    expect(made.errors).toEqual([])
  })

  it('survives the most extreme client clocks', async () => {
    const { connect } = await stage()
    for (const clientTimestampMs of [-(2n ** 63n), 2n ** 63n - 1n]) {
      const { connack } = await connect('ann', { clientTimestampMs })
      expect(connack.reasonCode).toBe(ReasonCode.Success)
    }
  })

  it('drops a SEND that comes in one chunk with CONNECT, and serves the same SEND after CONNACK', async () => {
    const { engine, clock } = await stage()
    const pair = socketPair()
    pair.attach(engine.accept(pair.server))
    const client = new TestClient(pair.client)
    const connecting = client.connect({ uid: 'ann' })
    const early = { type: FrameType.SEND, flags: 0, setting: 0, clientSeq: 1, clientMsgNo: 'n1', streamNo: '', channelID: 'team', channelType: 2, expireSec: 0, msgKey: '', topic: '', payload: Buffer.from('x') } as const
    client.sendRaw(encode(early, 5))
    expect((await connecting).reasonCode).toBe(ReasonCode.Success)
    await clock.settle()
    expect(client.received.map((frame) => frame.type)).toEqual([FrameType.CONNACK])
    expect(await client.send({ channelID: 'team', channelType: 2, payload: 'x', clientMsgNo: 'n1' })).toMatchObject({ messageSeq: 1 })
  })

  it('tells connected and disconnected once each, with the level the verifier gave', async () => {
    const { engine, connect, clock } = await stage({ tokenVerifier: allowAnyToken({ deviceLevel: DeviceLevel.Master }) })
    const facts: string[] = []
    engine.on('connected', ({ uid, deviceLevel, version }) => facts.push(`+${uid} ${deviceLevel} v${version}`))
    engine.on('disconnected', ({ uid, cause }) => facts.push(`-${uid} ${cause}`))
    const { pair } = await connect('ann', { version: 4 })
    pair.client.end()
    await clock.settle()
    expect(facts).toEqual(['+ann 1 v4', '-ann peer'])
  })

  it('lets a host handler refuse before CONNACK and sees no connection then', async () => {
    const made = await stage()
    made.engine.use('EventConnect', function onlyPhones(ctx) {
      if (ctx.conn.deviceFlag !== DeviceFlag.App) return { kind: 'close', reasonCode: ReasonCode.NotAllowSend, message: undefined }
    })
    expect(made.engine.steps('EventConnect')).toEqual(['authenticate', 'loadSession', 'onlyPhones', 'sendConnack'])
    const web = await tryConnect(made, { uid: 'ann', deviceFlag: DeviceFlag.Web })
    expect(web.connack.reasonCode).toBe(ReasonCode.NotAllowSend)
    expect((await tryConnect(made, { uid: 'ann' })).connack.reasonCode).toBe(ReasonCode.Success)
  })
})

test('with a random source of the host, equal bytes give equal keys and salts, connection by connection', async () => {
  const agreed = async (): Promise<string[]> => {
    const made = await stage()
    const logins = [await made.connect('ann'), await made.connect('bob'), await made.connect('cat')]
    return logins.flatMap(({ connack }) => [connack.serverKey, connack.salt])
  }
  const first = await agreed()
  expect(new Set(first).size).toBe(6)
  expect(await agreed()).toEqual(first)
})

test('every connection has keys of its own, also when they were made ahead', async () => {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
  await engine.start()
  try {
    const keys = new Set<string>()
    for (let count = 0; count < 30; count++) {
      const { connack, client } = await connectTestClient(engine, { uid: `user${count}` })
      keys.add(connack.serverKey)
      client.end()
    }
    expect(keys.size).toBe(30)
  } finally {
    await engine.close()
  }
})

test('a signal that a verifier looks at only when the chain has ended is aborted', async () => {
  let request: VerifyTokenRequest | undefined
  const made = await stage({ tokenVerifier: (given) => ((request = { ...given }), { ok: true }) })
  await made.connect('ann')
  expect(request!.signal.aborted).toBe(false) // a copy asks for it at once
  const kept = await stage({ tokenVerifier: (given) => ((request = given), { ok: true }) })
  await kept.connect('ann')
  expect(request!.signal.aborted).toBe(true)
})
