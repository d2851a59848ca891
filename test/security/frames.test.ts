import { describe, expect, test } from 'vitest'
import { ReasonCode } from 'imengine'
import { encode, FrameType, LATEST_VERSION, sealSend, type Frame, type SendPacket } from 'imengine/protocol'
import type { TestClient } from 'imengine/testing'
import { heard, openSocket, plainConnect, plainSend } from '../connection/raw.ts'
import { stage, TEAM } from '../support.ts'

/** A SEND as this client's SDK would write it. */
function sealed(client: TestClient, change: Partial<SendPacket> = {}): SendPacket {
  return sealSend({ ...plainSend('secret'), ...change }, client.cipher!)
}

/** The SENDACKs that no call of the test client waits for. */
function acks(client: TestClient): { reasonCode: number; messageID: string; messageSeq: number }[] {
  return client.received.flatMap((frame) => (frame.type === FrameType.SENDACK ? [{ reasonCode: frame.reasonCode, messageID: String(frame.messageID), messageSeq: frame.messageSeq }] : []))
}

describe('an encrypted frame that somebody else has written down', () => {
  test('is stored once when it is replayed on its connection, and gets the first answer', async () => {
    const { engine, connect, clock } = await stage()
    const [{ client: ann }, { client: bob }] = [await connect('ann'), await connect('bob')]
    const bytes = encode(sealed(ann), LATEST_VERSION)
    for (let count = 0; count < 3; count++) ann.sendRaw(bytes)
    await clock.settle()
    const [first, ...others] = acks(ann)
    expect(first).toMatchObject({ reasonCode: ReasonCode.Success, messageSeq: 1 })
    expect(others).toEqual([first, first])
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
    expect(bob.messages).toHaveLength(1)
  })

  test('is taken in the order in which frames come, each once: nothing says in which they were written', async () => {
    const { engine, connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const [one, two] = ['1', '2'].map((no) => encode(sealed(ann, { clientSeq: Number(no), clientMsgNo: no, payload: Buffer.from(no) }), LATEST_VERSION))
    for (const bytes of [two!, one!, two!]) ann.sendRaw(bytes)
    await clock.settle()
    const stored: string[] = []
    for await (const { payload } of engine.messages.range(TEAM)) stored.push(Buffer.from(payload).toString())
    expect(stored).toEqual(['2', '1'])
  })

  test('of an earlier session of the same user, or of another user, is refused with 9 and stored nowhere', async () => {
    const { engine, connect, clock } = await stage()
    const earlier = await connect('ann')
    const { client: bob } = await connect('bob')
    const captured = [sealed(earlier.client), sealed(bob)]
    earlier.client.end()
    const { client: ann } = await connect('ann')
    for (const frame of captured) ann.write(frame)
    await clock.settle()
    expect(acks(ann).map(({ reasonCode }) => reasonCode)).toEqual([ReasonCode.PayloadDecodeError, ReasonCode.PayloadDecodeError])
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })

  test.each<[field: string, change: Partial<SendPacket>]>([
    ['clientSeq', { clientSeq: 7 }],
    ['clientMsgNo', { clientMsgNo: 'n2' }],
    ['channelID', { channelID: 'other' }],
    ['channelType', { channelType: 4 }],
    ['payload', { payload: Buffer.from('AAAAAAAAAAAAAAAAAAAAAA==') }],
    ['msgKey', { msgKey: '0'.repeat(32) }],
    ['msgKey, which is missing', { msgKey: '' }],
    ['msgKey, with capitals', { msgKey: 'UP' }],
  ])('with another %s is refused with 9', async (_field, change) => {
    const { engine, connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const frame = sealed(ann)
    ann.write({ ...frame, ...change, ...(change.msgKey === 'UP' && { msgKey: frame.msgKey.toUpperCase() }) })
    await clock.settle()
    expect(acks(ann)).toMatchObject([{ reasonCode: ReasonCode.PayloadDecodeError, messageSeq: 0 }])
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })

  test('with one character of its msgKey changed is refused, whichever it is, by both kinds of cipher', async () => {
    for (const payloadCrypto of ['auto', 'node'] as const) {
      const { connect, clock } = await stage({ payloadCrypto })
      const { client: ann } = await connect('ann')
      const frame = sealed(ann)
      for (let at = 0; at < frame.msgKey.length; at++) {
        const other = frame.msgKey[at] === '0' ? '1' : '0'
        ann.write({ ...frame, msgKey: `${frame.msgKey.slice(0, at)}${other}${frame.msgKey.slice(at + 1)}` })
      }
      ann.write(frame)
      await clock.settle()
      expect(acks(ann).map(({ reasonCode }) => reasonCode)).toEqual([...Array<number>(32).fill(ReasonCode.PayloadDecodeError), ReasonCode.Success])
    }
  })

  test('can be cut differently where the protocol puts no separators: that is why SECURITY.md asks for TLS', async () => {
    const { engine, connect, clock } = await stage()
    const [{ client: ann }, { client: bob }] = [await connect('ann'), await connect('bob')]
    // 1 | 2n | team | 2  and  12 | n | team | 2 are the same to the signature, and not to the engine.
    const frame = sealed(ann, { clientSeq: 12, clientMsgNo: 'n' })
    ann.write(frame)
    ann.write({ ...frame, clientSeq: 1, clientMsgNo: '2n' })
    await clock.settle()
    expect(acks(ann).map(({ reasonCode }) => reasonCode)).toEqual([ReasonCode.Success, ReasonCode.Success])
    expect(await engine.messages.lastSeq(TEAM)).toBe(2)
    // And what bob was sent, in the other direction under the same key, he seems to say himself.
    const recv = bob.received.find((each) => each.type === FrameType.RECV)
    if (recv?.type !== FrameType.RECV) throw new Error('bob has got nothing')
    const id = String(recv.messageID)
    const clientMsgNo = `${id.slice(1)}${recv.messageSeq}${recv.clientMsgNo}${recv.timestampSec}${recv.fromUID}`
    bob.write({ ...plainSend(''), clientSeq: Number(id[0]), clientMsgNo, payload: recv.payload, msgKey: recv.msgKey })
    await clock.settle()
    expect(acks(bob)).toMatchObject([{ reasonCode: ReasonCode.Success, messageSeq: 3 }])
  })
})

describe('a client that speaks as somebody else', () => {
  const serverOnly: Frame[] = [
    { type: FrameType.CONNACK, flags: 0, serverVersion: 5, timeDiffMs: 0n, reasonCode: 1, serverKey: '', salt: '', nodeID: '1' } as Frame,
    { type: FrameType.SENDACK, flags: 0, messageID: '1', clientSeq: 1, messageSeq: 1, reasonCode: 1 },
    {
      type: FrameType.RECV, flags: 0, setting: 0, msgKey: '', fromUID: 'ann', channelID: 'team', channelType: 2, expireSec: 0, clientMsgNo: 'x', messageID: '1', messageSeq: 1,
      timestampSec: 1, topic: '', payload: Buffer.from('x'), streamNo: '', streamID: '0', streamFlag: 0,
    },
    { type: FrameType.PONG },
    { type: FrameType.SUBACK, flags: 0, subNo: '', channelID: 'team', channelType: 2, action: 0, reasonCode: 1 },
  ]

  test.each(serverOnly.map((frame) => [Object.entries(FrameType).find(([, type]) => type === frame.type)![0], frame] as const))(
    'by %s, which only servers send, loses its connection, before and after login, and nobody hears of it',
    async (_name, frame) => {
      const { engine, connect, clock } = await stage()
      const disconnected = heard(engine, 'disconnected')
      const { client: bob } = await connect('bob')
      const { client: mallory, pair } = await connect('mallory')
      const stranger = openSocket(engine)
      mallory.write(frame)
      stranger.client.write(frame)
      await clock.settle()
      expect(disconnected).toMatchObject([{ uid: 'mallory', cause: 'protocol' }])
      expect([pair.client.socketEnd?.by, stranger.pair.client.socketEnd?.by]).toEqual(['server', 'server'])
      expect(bob.received.map(({ type }) => type)).toEqual([FrameType.CONNACK])
      expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    },
  )

  test('by a second CONNECT gets no other uid, and by what stands in a payload neither', async () => {
    const { engine, connect, clock } = await stage({ plaintext: 'allow' })
    const { client: bob } = await connect('bob')
    const { client: cat, pair } = await connect('cat')
    await cat.send({ ...TEAM, payload: JSON.stringify({ from_uid: 'ann', fromUID: 'ann', type: 1, content: 'x' }), clientMsgNo: 'ann', topic: 'ann' })
    expect((await bob.nextRecv()).fromUID).toBe('cat')
    cat.sendRaw(Buffer.concat([encode(plainConnect('ann'), LATEST_VERSION), encode(plainSend('as ann'), LATEST_VERSION)]))
    await clock.settle()
    expect(pair.client.socketEnd).toMatchObject({ by: 'server' })
    expect(engine.connections.list().map(({ uid }) => uid)).toEqual(['bob'])
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })
})
