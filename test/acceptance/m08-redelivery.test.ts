import type { Message, PeerPush, PeerPushHost } from 'imengine'
import { describe, expect, test } from 'vitest'
import { FrameFlag } from 'imengine/protocol'
import type { ConnectedTestClient } from 'imengine/testing'
import { heard } from '../connection/raw.ts'
import { stage, TEAM } from '../support.ts'

const hi = { ...TEAM, fromUID: 'ann', payload: Buffer.from('hi') }
const limits = { redeliverAfterMs: 30_000, maxRedeliveries: 3, timerTickMs: 1 }

function copiesOf({ client }: ConnectedTestClient): string[] {
  return client.messages.map(({ text, flags, messageSeq }) => `${text} ${messageSeq}${(flags & FrameFlag.Dup) === 0 ? '' : ' DUP'}`)
}

describe('M8 RECVACK redelivery, bounded, replay on reconnect', () => {
  test('no ack: RECV is repeated at the set interval, stops at the maximum, and is told as undelivered once', async () => {
    const { engine, clock, connect } = await stage({ limits })
    const undelivered = heard(engine, 'undelivered')
    const bob = await connect('bob', { autoAck: false })
    const cat = await connect('cat')
    await engine.messages.send(hi)
    const startMs = clock.monotonicMs()
    const until = (ms: number): Promise<void> => clock.advance(startMs + ms - clock.monotonicMs())
    for (let copyCount = 1; copyCount <= 3; copyCount++) {
      await until(copyCount * 30_000 - 1)
      expect(copiesOf(bob)).toHaveLength(copyCount)
      await until(copyCount * 30_000 + copyCount) // a tick late each, at most
      expect(copiesOf(bob)).toHaveLength(copyCount + 1)
    }
    expect(undelivered).toEqual([])
    await clock.advance(100_000)
    expect(copiesOf(bob)).toEqual(['hi 1', 'hi 1 DUP', 'hi 1 DUP', 'hi 1 DUP'])
    expect(undelivered).toMatchObject([{ uid: 'bob', messages: [{ messageSeq: 1 }] }])
    expect(copiesOf(cat)).toEqual(['hi 1'])
  })

  test('reconnect: what was not acknowledged is delivered once, in order, and once acknowledged never again', async () => {
    const { engine, clock, connect } = await stage({ limits })
    const first = await connect('bob', { autoAck: false })
    for (const text of ['1', '2', '3']) await engine.messages.send({ ...hi, payload: Buffer.from(text) })
    await clock.settle()
    first.client.ack(first.client.messages[0]!)
    await clock.settle()
    first.pair.client.destroy()
    await clock.settle()
    const second = await connect('bob')
    await clock.advance(100_000)
    expect(copiesOf(second)).toEqual(['2 2', '3 3'])
    second.pair.client.destroy()
    await clock.settle()
    const third = await connect('bob')
    await clock.advance(100_000)
    expect(copiesOf(third)).toEqual([])
  })

  test('handed over twice by another node and acknowledged once: it is neither sent again nor told as undelivered', async () => {
    let host!: PeerPushHost
    const peerPush: PeerPush = { start: (given) => void (host = given), push: () => undefined, kick: () => undefined, close: () => undefined }
    const { engine, clock, connect } = await stage({ limits, peerPush })
    const undelivered = heard(engine, 'undelivered')
    const bob = await connect('bob', { autoAck: false })
    const { messageID } = await engine.messages.send(hi)
    const messages = (await engine.messages.get([messageID])) as Message[]
    await clock.settle()
    await host.pushed({ key: TEAM, messages, uids: ['bob'] })
    await clock.settle()
    bob.client.ack(bob.client.messages[0]!)
    await clock.advance(200_000)
    expect(copiesOf(bob)).toEqual(['hi 1', 'hi 1'])
    expect(undelivered).toEqual([])
  })

  test('ack: none', async () => {
    const { engine, clock, connect } = await stage({ limits })
    const undelivered = heard(engine, 'undelivered')
    const bob = await connect('bob', { autoAck: false })
    await engine.messages.send(hi)
    bob.client.ack(await bob.client.nextRecv())
    await clock.advance(160_000)
    expect(copiesOf(bob)).toEqual(['hi 1'])
    expect(undelivered).toEqual([])
  })
})
