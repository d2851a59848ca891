import { describe, expect, test } from 'vitest'
import { ReasonCode, type IMEngineOptions } from 'imengine'
import { encode, FrameType, LATEST_VERSION } from 'imengine/protocol'
import { heard, openSocket, plainConnect, plainSend } from '../connection/raw.ts'
import { stage, TEAM } from '../support.ts'

const hanging: IMEngineOptions['tokenVerifier'] = () => new Promise(() => undefined)

describe('somebody who has not logged in', () => {
  // P6
  test('may send so many bytes and no more, in whatever pieces, before and behind CONNECT', async () => {
    const { engine, clock } = await stage({ tokenVerifier: hanging, plaintext: 'allow', limits: { maxUnauthenticatedBytes: 1_000 } })
    const refused = heard(engine, 'connectionRefused')
    const announced = openSocket(engine)
    announced.client.sendRaw(Uint8Array.of(0x10, 0xff, 0x7f)) // 16 383 bytes are to come
    for (let count = 0; count < 1_010; count++) announced.client.sendRaw(Uint8Array.of(0))
    const waiting = openSocket(engine)
    waiting.client.write(plainConnect('ann'))
    for (let count = 0; count < 20; count++) waiting.client.write(plainSend('x'.repeat(60)))
    await clock.settle()
    expect(refused.map(({ cause }) => cause)).toEqual(['limit', 'limit'])
  })

  test('may take so long and no longer, also when a byte comes all the time', async () => {
    const { engine, clock } = await stage({ limits: { connectTimeoutMs: 2_000 } })
    const refused = heard(engine, 'connectionRefused')
    const { client, pair } = openSocket(engine)
    client.sendRaw(Uint8Array.of(0x10, 0x7f))
    for (let count = 0; count < 30; count++) {
      client.sendRaw(Uint8Array.of(0))
      await clock.advance(100)
    }
    expect(refused).toMatchObject([{ cause: 'connect-timeout' }])
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
  })

  test('waits for a verifier that hangs for so long and no longer, and it hears of the end', async () => {
    let isAborted = false
    const { engine, clock } = await stage({
      tokenVerifier: ({ signal }) => {
        signal.addEventListener('abort', () => (isAborted = true))
        return new Promise(() => undefined)
      },
      plaintext: 'allow', limits: { authTimeoutMs: 1_000 },
    })
    const { client, pair } = openSocket(engine)
    client.write(plainConnect('ann'))
    await clock.advance(1_300)
    expect(client.received).toMatchObject([{ type: FrameType.CONNACK, reasonCode: ReasonCode.SystemError }])
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(isAborted).toBe(true)
  })

  test('is one of so many: the next one is turned away, and who has logged in stays', async () => {
    const { engine, clock, connect } = await stage({ limits: { maxUnauthenticated: 3 } })
    const { client: ann } = await connect('ann')
    const strangers = Array.from({ length: 5 }, () => openSocket(engine))
    await clock.settle()
    expect(strangers.map(({ pair }) => pair.client.socketEnd?.by)).toEqual([undefined, undefined, undefined, 'server', 'server'])
    await ann.ping()
  })

  test('makes nobody work but the verifier, and that once: no handler, no store, no key', async () => {
    let askedCount = 0
    const drawn: number[] = []
    const { engine, clock } = await stage({
      plaintext: 'allow', random: { bytes: (count) => (drawn.push(count), new Uint8Array(count)) },
      tokenVerifier: () => (askedCount++, { ok: false }),
    })
    const ran: string[] = []
    engine.use('EventOnSend', function look() { ran.push('send') })
    engine.use('EventPing', function look() { ran.push('ping') })
    engine.use('EventRecvAck', function look() { ran.push('ack') })
    drawn.length = 0
    const frames = [
      { ...plainConnect('ann'), clientKey: Buffer.alloc(32, 9).toString('base64') }, plainSend('x'), { type: FrameType.PING } as const,
      { type: FrameType.RECVACK, flags: 0, messageID: '1', messageSeq: 1 } as const,
    ]
    const { client } = openSocket(engine)
    client.sendRaw(Buffer.concat(frames.map((frame) => encode(frame, LATEST_VERSION))))
    await clock.settle()
    expect(client.received).toMatchObject([{ type: FrameType.CONNACK, reasonCode: ReasonCode.AuthFail, serverKey: '', salt: '' }])
    expect([askedCount, ran, drawn]).toEqual([1, [], []])
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })
})
