import type { Socket } from 'imengine'
import { decode, encode } from 'imengine/protocol'
import { describe, expect, test } from 'vitest'
import { FrameFlag, FrameType } from '../../src/model/frames.ts'
import { stage, TEAM, type Stage } from '../support.ts'
import { heard, plainConnect } from './raw.ts'

const hi = { ...TEAM, fromUID: 'ann', payload: Buffer.from('hi') }

/** The texts and DUP bits of what a client has been sent. */
async function received({ clock }: Stage, client: { readonly messages: readonly { readonly text: string; readonly flags: number }[] }) {
  await clock.settle()
  return client.messages.map(({ text, flags }) => `${text}${(flags & FrameFlag.Dup) === 0 ? '' : ' again'}`)
}

/** A client that does not acknowledge, kept alive by a PING every minute. */
async function silentBob(made: Stage) {
  const bob = await made.connect('bob', { autoAck: false })
  const minute = async (): Promise<void> => {
    await bob.client.ping()
    await made.clock.advance(60_000)
  }
  return { ...bob, minute }
}

describe('a RECV that is not acknowledged', () => {
  test('comes again with DUP every 60 s, five times, and is told as undelivered once after that', async () => {
    const made = await stage()
    const undelivered = heard(made.engine, 'undelivered')
    const bob = await silentBob(made)
    await made.engine.messages.send(hi)
    await made.clock.advance(59_900)
    expect(await received(made, bob.client)).toEqual(['hi'])
    await made.clock.advance(200)
    expect(await received(made, bob.client)).toEqual(['hi', 'hi again'])
    for (let count = 2; count <= 5; count++) {
      await bob.minute()
      await made.clock.advance(100)
      expect(await received(made, bob.client)).toHaveLength(1 + count)
    }
    expect(undelivered).toEqual([])
    for (let count = 0; count < 4; count++) await bob.minute()
    expect(await received(made, bob.client)).toEqual(['hi', ...Array<string>(5).fill('hi again')])
    expect(undelivered).toMatchObject([{ key: TEAM, uid: 'bob', nodeID: undefined, messages: [{ messageSeq: 1 }] }])
    expect(undelivered).toHaveLength(1)
    expect(bob.pair.client.socketEnd).toBeUndefined()
  })

  test('has the same ids every time', async () => {
    const made = await stage()
    const bob = await silentBob(made)
    await made.engine.messages.send(hi)
    await made.clock.advance(60_200)
    const [first, again] = bob.client.messages
    expect({ ...again!, flags: 0, msgKey: '' }).toEqual({ ...first!, flags: 0, msgKey: '' })
  })

  test('comes no more once it is acknowledged, while the others still do', async () => {
    const made = await stage()
    const undelivered = heard(made.engine, 'undelivered')
    const bob = await silentBob(made)
    await made.engine.messages.send(hi)
    await made.engine.messages.send({ ...hi, payload: Buffer.from('ho') })
    await made.clock.settle()
    bob.client.ack(bob.client.messages[0]!)
    await made.clock.advance(60_200)
    expect(await received(made, bob.client)).toEqual(['hi', 'ho', 'ho again'])
    bob.client.ack(bob.client.messages[2]!) // the second copy counts as well
    for (let count = 0; count < 8; count++) await bob.minute()
    expect(await received(made, bob.client)).toEqual(['hi', 'ho', 'ho again'])
    expect(undelivered).toEqual([])
  })

  test('comes in the order of the first time when several are due', async () => {
    const made = await stage()
    const bob = await silentBob(made)
    for (const text of ['1', '2', '3']) await made.engine.messages.send({ ...hi, payload: Buffer.from(text) })
    await made.clock.advance(60_200)
    expect(await received(made, bob.client)).toEqual(['1', '2', '3', '1 again', '2 again', '3 again'])
  })

  test('comes no more when its connection has ended, and a new connection does not inherit it', async () => {
    const made = await stage({ offline: 'none' })
    const undelivered = heard(made.engine, 'undelivered')
    const bob = await made.connect('bob', { autoAck: false })
    await made.engine.messages.send(hi)
    await made.clock.settle()
    bob.client.end()
    const again = await silentBob(made)
    for (let count = 0; count < 8; count++) await again.minute()
    expect(again.client.messages).toEqual([])
    expect(undelivered).toEqual([])
  })

  test('comes never again with redeliverAfterMs 0', async () => {
    const made = await stage({ limits: { redeliverAfterMs: 0 } })
    const undelivered = heard(made.engine, 'undelivered')
    const bob = await silentBob(made)
    await made.engine.messages.send(hi)
    for (let count = 0; count < 8; count++) await bob.minute()
    expect(await received(made, bob.client)).toEqual(['hi'])
    expect(undelivered).toEqual([])
  })

  test('with maxRedeliveries 0 is told as undelivered after the time, and not sent again', async () => {
    const made = await stage({ limits: { maxRedeliveries: 0 } })
    const undelivered = heard(made.engine, 'undelivered')
    const bob = await silentBob(made)
    await made.engine.messages.send(hi)
    await made.clock.advance(60_200)
    expect(await received(made, bob.client)).toEqual(['hi'])
    expect(undelivered).toHaveLength(1)
  })

  test('is forgotten at maxUnackedRecvs, which is told: of more, only the newest come again', async () => {
    const made = await stage({ limits: { maxUnackedRecvs: 2 } })
    const undelivered = heard(made.engine, 'undelivered')
    const bob = await silentBob(made)
    for (const text of ['1', '2', '3']) await made.engine.messages.send({ ...hi, payload: Buffer.from(text) })
    await made.clock.advance(60_200)
    expect(await received(made, bob.client)).toEqual(['1', '2', '3', '2 again', '3 again'])
    expect(undelivered).toMatchObject([{ uid: 'bob', messages: [{ messageSeq: 1 }] }])
  })

  test('that is stored nowhere does not come again', async () => {
    const made = await stage()
    const bob = await silentBob(made)
    await made.engine.messages.send({ ...hi, noPersist: true })
    for (let count = 0; count < 7; count++) await bob.minute()
    expect(await received(made, bob.client)).toEqual(['hi'])
  })
})

describe('a RECVACK', () => {
  test('for what was never sent, or sent to somebody else, is ignored', async () => {
    const made = await stage()
    const events: string[] = []
    made.engine.use('EventRecvAck', function spy(ctx) {
      events.push(ctx.message.messageID)
    })
    const bob = await silentBob(made)
    const cat = await made.connect('cat', { autoAck: false })
    await made.engine.messages.send({ channelID: 'cat', channelType: 1, fromUID: 'ann', payload: Buffer.from('private') })
    const recv = await cat.client.nextRecv()
    bob.client.ack(recv)
    for (const messageID of ['0', '999', '18446744073709551615']) bob.client.write({ type: FrameType.RECVACK, flags: 0, messageID, messageSeq: 1 })
    await bob.client.ping()
    expect(events).toEqual([])
    await made.clock.advance(60_200)
    expect(await received(made, cat.client)).toEqual(['private', 'private again'])
  })

  test('that comes twice counts once', async () => {
    const made = await stage()
    const events: string[] = []
    made.engine.use('EventRecvAck', function spy(ctx) {
      events.push(ctx.message.messageID)
    })
    const bob = await silentBob(made)
    await made.engine.messages.send(hi)
    const recv = await bob.client.nextRecv()
    bob.client.ack(recv)
    await made.clock.settle()
    bob.client.ack(recv)
    await bob.client.ping()
    expect(events).toEqual([recv.messageID])
  })
})

describe.each(['plain', 'encrypted'])('a RECV so large that it is written at once (%s)', (kind) => {
  const large = { ...hi, payload: Buffer.alloc(100_000) }
  const limits = { maxPayloadBytes: 200_000 }
  const clientKey = kind === 'plain' ? '' : Buffer.alloc(32, 9).toString('base64')

  /** bob on a socket that calls `taken` with all it is given, while it is given it. */
  async function directBob({ engine, clock }: Stage, taken: (bytes: Uint8Array, receive: (chunk: Uint8Array) => void) => void) {
    let isOpen = false
    const socket: Socket = {
      bufferedBytes: 0,
      send: (bytes) => {
        if (isOpen) taken(bytes, (chunk) => events.receive(chunk))
      },
      close: () => undefined,
    }
    const events = engine.accept(socket)
    events.receive(encode({ ...plainConnect('bob'), clientKey }, 5))
    await clock.settle()
    isOpen = true
  }

  test('and acknowledged while the transport takes it does not come again', async () => {
    const made = await stage({ limits, plaintext: 'allow' })
    const undelivered = heard(made.engine, 'undelivered')
    let count = 0
    await directBob(made, (bytes, receive) => {
      count++
      const result = decode(bytes, 5)
      if (result.status !== 'frame' || result.frame.type !== FrameType.RECV) return
      const { messageID, messageSeq } = result.frame
      receive(encode({ type: FrameType.RECVACK, flags: 0, messageID, messageSeq }, 5))
    })
    await made.engine.messages.send(large)
    await made.clock.advance(100_000)
    expect([count, undelivered.length]).toEqual([1, 0])
  })

  test('to a socket that breaks over it leaves nothing behind on the connection', async () => {
    const made = await stage({ limits: { ...limits, redeliverAfterMs: 1_000 }, plaintext: 'allow' })
    const undelivered = heard(made.engine, 'undelivered')
    await directBob(made, () => {
      throw new Error('broken')
    })
    await made.engine.messages.send(large)
    await made.clock.advance(60_000)
    expect(undelivered).toHaveLength(0)
  })
})

test('a connection that ends when it is told that one of several messages is undelivered keeps none of the others', async () => {
  const made = await stage({ plaintext: 'allow', limits: { maxUnackedRecvs: 1, redeliverAfterMs: 1_000, kickLingerMs: 1 } })
  const undelivered = heard(made.engine, 'undelivered')
  made.engine.on('undelivered', () => void made.engine.connections.kick({ uid: 'bob' }))
  await made.connect('bob', { autoAck: false, plaintext: true })
  await Promise.all(['1', '2', '3', '4'].map((text) => made.engine.messages.send({ ...hi, payload: Buffer.from(text) })))
  await made.clock.advance(60_000)
  expect(undelivered).toHaveLength(1)
})
