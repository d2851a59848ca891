import { describe, expect, test } from 'vitest'
import { DeviceLevel, ReasonCode, type IMEngineOptions } from 'imengine'
import { encode } from 'imengine/protocol'
import { FrameType, LATEST_VERSION, type ConnectPacket } from '../../src/model/frames.ts'
import { heard, openSocket, plainSend, typesOf } from '../connection/raw.ts'
import { deferred, stage, TEAM } from '../support.ts'

/** A Curve25519 key that somebody may have. */
const KEY = Buffer.from(Array.from({ length: 32 }, (_, index) => index + 9)).toString('base64')

function connectOf(over: Partial<ConnectPacket> = {}): ConnectPacket {
  return {
    type: FrameType.CONNECT, flags: 0, version: LATEST_VERSION, deviceFlag: 0, deviceID: 'phone', uid: 'ann', token: 'right',
    clientTimestampMs: 1_600_000_000_000n, clientKey: KEY, ...over,
  }
}

/** Tokens that were handed out; anything else is unknown, or somebody else's. */
const TOKENS: Partial<IMEngineOptions> = { tokenVerifier: ({ uid, token }) => ({ ok: { ann: 'right', bob: 'bobs' }[uid] === token }) }

const broken = (verify: () => unknown): Partial<IMEngineOptions> => ({ tokenVerifier: verify as never })

const failures: [situation: string, options: Partial<IMEngineOptions>, frame: ConnectPacket, reasonCode: ReasonCode][] = [
  ['a wrong token', TOKENS, connectOf({ token: 'wrong' }), ReasonCode.AuthFail],
  ['another user’s token', TOKENS, connectOf({ token: 'bobs' }), ReasonCode.AuthFail],
  ['a missing token', TOKENS, connectOf({ token: '' }), ReasonCode.AuthFail],
  ['a user whom no token is known of', TOKENS, connectOf({ uid: 'nobody' }), ReasonCode.AuthFail],
  ['a reason of the verifier’s own', broken(() => ({ ok: false, reason: ReasonCode.QueryTokenError })), connectOf(), ReasonCode.QueryTokenError],
  ['a verifier that throws', broken(() => { throw new Error('down') }), connectOf(), ReasonCode.SystemError],
  ['a verifier that rejects', broken(() => Promise.reject(new Error('down'))), connectOf(), ReasonCode.SystemError],
  ['a verifier that answers nonsense', broken(() => true), connectOf(), ReasonCode.SystemError],
  ['a banned user', {}, connectOf({ uid: 'banned' }), ReasonCode.Ban],
  ['an empty client key', {}, connectOf({ clientKey: '' }), ReasonCode.ClientKeyIsEmpty],
  ['a client key that is no base64', {}, connectOf({ clientKey: '*'.repeat(44) }), ReasonCode.AuthFail],
  ['a client key that is too short', {}, connectOf({ clientKey: Buffer.alloc(31, 9).toString('base64') }), ReasonCode.AuthFail],
  ['a client key that is too long', {}, connectOf({ clientKey: Buffer.alloc(33, 9).toString('base64') }), ReasonCode.AuthFail],
  ['a client key that makes the shared one known', {}, connectOf({ clientKey: Buffer.alloc(32).toString('base64') }), ReasonCode.AuthFail],
  ['an empty uid', {}, connectOf({ uid: '' }), ReasonCode.AuthFail],
  ['an illegal uid', {}, connectOf({ uid: 'a@b' }), ReasonCode.AuthFail],
]

describe('M5 Correct CONNACK on every failure; async verifier; pipelined frames', () => {
  test.each(failures)('%s: the code, no key, and only then the end', async (_situation, options, frame, reasonCode) => {
    const { engine, clock } = await stage(options)
    await engine.users.setFlags('banned', { banned: true })
    const refused = heard(engine, 'connectionRefused')
    const { client, pair } = openSocket(engine, { framing: 'message' })
    pair.client.pauseReading()
    client.write(frame)
    await clock.settle()
    expect(pair.client.socketEnd).toBeUndefined() // CONNACK is on its way, so the socket is not gone
    pair.client.resumeReading()
    await clock.settle()
    expect(client.received).toMatchObject([{ type: FrameType.CONNACK, reasonCode, serverKey: '', salt: '', nodeID: '1' }])
    expect(pair.client.socketEnd).toMatchObject({ by: 'server', code: 1008 })
    expect(refused).toMatchObject([{ uid: frame.uid, cause: 'refused', reasonCode }])
    expect(engine.connections.list()).toEqual([])
  })

  test('CONNACK is given to the transport before the transport is told to close, and nothing else is', async () => {
    const { engine, clock } = await stage({ tokenVerifier: () => ({ ok: false }) })
    const calls: string[] = []
    const connection = engine.accept({
      send: (bytes) => void calls.push(`send ${bytes[0]! >>> 4}`),
      close: () => void calls.push('close'),
      destroy: () => void calls.push('destroy'),
      bufferedBytes: 0,
    })
    connection.receive(encode(connectOf(), LATEST_VERSION))
    await clock.settle()
    expect(calls).toEqual([`send ${FrameType.CONNACK}`, 'close'])
    connection.closed()
  })

  test('a verifier that hangs: 15 at authTimeoutMs, not before, then the end; its late yes opens nothing', async () => {
    const answer = deferred<{ ok: true }>()
    const { engine, clock } = await stage({ tokenVerifier: () => answer.promise, limits: { timerTickMs: 1 } })
    const refused = heard(engine, 'connectionRefused')
    const { client, pair } = openSocket(engine)
    client.write(connectOf())
    await clock.advance(engine.limits.authTimeoutMs - 1)
    expect(client.received).toEqual([])
    await clock.advance(3)
    expect(client.received).toMatchObject([{ type: FrameType.CONNACK, reasonCode: ReasonCode.SystemError, serverKey: '' }])
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(refused).toMatchObject([{ cause: 'auth-timeout' }])
    answer.resolve({ ok: true })
    await clock.settle()
    expect(engine.connections.list()).toEqual([])
  })

  test('a verifier that takes its time lets the client in all the same', async () => {
    const answer = deferred<{ ok: true; deviceLevel: DeviceLevel }>()
    const { engine, clock } = await stage({ tokenVerifier: () => answer.promise })
    const { client } = openSocket(engine)
    const connack = client.connect({ uid: 'ann' })
    await clock.advance(engine.limits.authTimeoutMs - 1_000)
    answer.resolve({ ok: true, deviceLevel: DeviceLevel.Master })
    expect((await connack).reasonCode).toBe(ReasonCode.Success)
    expect(engine.connections.list()).toMatchObject([{ uid: 'ann', deviceLevel: DeviceLevel.Master }])
  })

  test('success: 1, the time difference, the node id, and a key and a salt that the client can read with', async () => {
    const { engine, clock } = await stage({ nodeID: 7 })
    const { client } = openSocket(engine)
    const connack = await client.connect({ uid: 'ann', clientTimestampMs: BigInt(clock.nowMs() - 1_234) })
    expect(connack).toMatchObject({ reasonCode: ReasonCode.Success, timeDiffMs: 1_234n, nodeID: '7', serverVersion: LATEST_VERSION })
    expect(Buffer.from(connack.serverKey, 'base64')).toHaveLength(32)
    expect(connack.salt).toMatch(/^[0-9a-zA-Z]{16}$/)
    await engine.messages.send({ ...TEAM, fromUID: 'bob', payload: Buffer.from('sealed') })
    expect((await client.nextRecv()).text).toBe('sealed')
  })

  test('success of a client without a key, where the host allows it: 1 and neither key nor salt', async () => {
    const { engine } = await stage({ plaintext: 'allow' })
    expect(await openSocket(engine).client.connect({ uid: 'ann', plaintext: true })).toMatchObject({ reasonCode: ReasonCode.Success, serverKey: '', salt: '' })
  })

  // docs/decisions/0008: what comes before CONNACK cannot have been written with the key that CONNACK brings.
  test('CONNECT and SEND in one chunk: CONNACK; the SEND gets nothing, and its SENDACK when the client sends it again', async () => {
    const { engine, clock } = await stage({ plaintext: 'allow' })
    const { client } = openSocket(engine)
    const send = encode(plainSend('hi'), LATEST_VERSION)
    client.sendRaw(Buffer.concat([encode(connectOf({ clientKey: '' }), LATEST_VERSION), send]))
    await clock.settle()
    expect(typesOf(client)).toEqual([FrameType.CONNACK])
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    client.sendRaw(send)
    await clock.settle()
    expect(typesOf(client)).toEqual([FrameType.CONNACK, FrameType.SENDACK])
    expect(client.received[1]).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1, clientSeq: 1 })
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })
})
