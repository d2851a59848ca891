import { describe, expect, test } from 'vitest'
import { ReasonCode } from 'imengine'
import { heard, openSocket } from '../connection/raw.ts'
import { stage, TEAM } from '../support.ts'

describe('M22 Slow-consumer and limits: per user, per IP, rate, payload, buffer', () => {
  test('a socket that never drains is cut at the high-water mark; everybody else gets everything in order', async () => {
    const limits = { maxOutboundBytes: 32_768 }
    const { engine, clock, connect } = await stage({ limits })
    const slow = heard(engine, 'slowConsumer')
    const disconnected = heard(engine, 'disconnected')
    const bob = await connect('bob', { highWaterBytes: 1_024 })
    const others = [await connect('cat'), await connect('bob', { deviceID: 'second' })]
    bob.pair.client.pauseReading()
    let waitedMost = 0
    for (let count = 0; count < 60; count++) {
      await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.alloc(1_000, 0x61) })
      await clock.settle()
      waitedMost = Math.max(waitedMost, bob.pair.server.bufferedBytes)
    }
    expect(slow).toMatchObject([{ connection: { uid: 'bob', deviceID: 'bob-device' }, action: 'disconnected' }])
    expect(disconnected).toMatchObject([{ uid: 'bob', deviceID: 'bob-device', cause: 'slow-consumer' }])
    expect(bob.pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(waitedMost).toBeLessThanOrEqual(limits.maxOutboundBytes)
    for (const { client } of others) {
      expect(client.messages.map(({ messageSeq }) => messageSeq)).toEqual(Array.from({ length: 60 }, (_, index) => index + 1))
    }
  })

  test('per user: the connection that is one too many gets CONNACK 22; another user’s does not', async () => {
    const { engine, connect } = await stage({ limits: { maxConnectionsPerUID: 3 } })
    const inside = []
    for (const deviceID of ['1', '2', '3']) inside.push(await connect('ann', { deviceID }))
    expect((await openSocket(engine).client.connect({ uid: 'ann', deviceID: '4' })).reasonCode).toBe(ReasonCode.RateLimit)
    await connect('bob', { deviceID: '4' })
    for (const { client } of inside) await client.ping()
  })

  test('per address: the socket that is one too many is closed unread; another address’s is not', async () => {
    const { engine, clock } = await stage({ limits: { maxConnectionsPerAddress: 3 } })
    const open = (remoteAddress: string) => openSocket(engine, { remoteAddress, framing: 'message' })
    const inside = [open('10.0.0.1'), open('::ffff:10.0.0.1'), open('10.0.0.1')]
    const fourth = open('10.0.0.1')
    const other = open('10.0.0.2')
    await clock.settle()
    expect(fourth.pair.client.socketEnd).toMatchObject({ by: 'server', code: 1013 })
    for (const [index, { client }] of [...inside, other].entries()) {
      expect((await client.connect({ uid: `u${index}` })).reasonCode).toBe(ReasonCode.Success)
    }
  })

  test.each([
    ['of a connection', { maxSendsPerSecond: 5 }],
    ['of a user', { maxSendsPerSecondPerUID: 5 }],
  ])('over the rate %s: SENDACK 22, stored nowhere, told as refused; a later one passes, and so do others', async (_whose, limits) => {
    const { engine, clock, connect } = await stage({ limits })
    const refused = heard(engine, 'messageRefused')
    const ann = await connect('ann')
    const bob = await connect('bob')
    const acks = await Promise.all(Array.from({ length: 8 }, (_, index) => ann.client.send({ ...TEAM, payload: String(index) })))
    expect(acks.map(({ reasonCode }) => reasonCode)).toEqual([...Array<number>(5).fill(ReasonCode.Success), ...Array<number>(3).fill(ReasonCode.RateLimit)])
    for (const ack of acks.slice(5)) expect(ack).toMatchObject({ messageID: '0', messageSeq: 0 })
    expect(refused.map(({ fromUID, reasonCode }) => [fromUID, reasonCode])).toEqual(Array(3).fill(['ann', ReasonCode.RateLimit]))
    expect((await bob.client.send({ ...TEAM, payload: 'mine' })).reasonCode).toBe(ReasonCode.Success)
    expect(await engine.messages.lastSeq(TEAM)).toBe(6)
    await clock.advance(1_000)
    expect((await ann.client.send({ ...TEAM, payload: 'later' })).reasonCode).toBe(ReasonCode.Success)
  })

  test('payload: one byte beyond the bound gets SENDACK 9, and the connection goes on', async () => {
    const { engine, connect } = await stage()
    const { client } = await connect('ann')
    const { maxPayloadBytes } = engine.limits
    expect((await client.send({ ...TEAM, payload: Buffer.alloc(maxPayloadBytes + 1) })).reasonCode).toBe(ReasonCode.PayloadDecodeError)
    expect(await client.send({ ...TEAM, payload: Buffer.alloc(maxPayloadBytes) })).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
  })
})
