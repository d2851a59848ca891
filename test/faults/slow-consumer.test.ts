import { describe, expect, it } from 'vitest'
import { ChannelType } from 'imengine'
import { FrameType } from 'imengine/protocol'
import { stage, TEAM } from '../support.ts'

const CROWD = { channelID: 'crowd', channelType: ChannelType.Group }
const MEMBER_COUNT = 1_000
const MESSAGE_COUNT = 40

describe('a client that stops reading', () => {
  // P6
  it('is cut at the limit, while the other 999 of its group get everything in order', async () => {
    const { engine, connect, clock, errors } = await stage({ plaintext: 'allow', limits: { maxOutboundBytes: 65_536 } })
    const uids = Array.from({ length: MEMBER_COUNT }, (_, index) => `u${index}`)
    await engine.channels.create(CROWD, { subscribers: uids })
    const members = []
    for (const uid of uids) members.push(await connect(uid, { plaintext: true, autoAck: false, highWaterBytes: 8_192 }))
    const slow: unknown[] = []
    engine.on('slowConsumer', ({ connection, action }) => slow.push([connection.uid, action]))
    const stuck = members[500]!
    stuck.pair.client.pauseReading()

    const payload = 'x'.repeat(4_000)
    for (let count = 0; count < MESSAGE_COUNT; count++) {
      expect((await members[0]!.client.send({ ...CROWD, payload })).reasonCode).toBe(1)
    }
    await clock.settle()

    expect(slow).toEqual([['u500', 'disconnected']])
    expect(engine.connections.list({ uid: 'u500' })).toEqual([])
    const held = stuck.pair.sentChunks.reduce((bytes, chunk) => bytes + chunk.length, 0)
    expect(held).toBeLessThanOrEqual(65_536 + 8_192)
    const all = Array.from({ length: MESSAGE_COUNT }, (_, index) => index + 1)
    for (const [index, { client }] of members.entries()) {
      if (index !== 0 && index !== 500) expect(client.messages.map((message) => message.messageSeq), uids[index]).toEqual(all)
    }
    expect(errors).toEqual([])
  }, 60_000)

  it('only misses pushes with slowConsumer: skip, in order and without doubles when it reads again', async () => {
    const { engine, connect, clock } = await stage({ plaintext: 'allow', slowConsumer: 'skip', limits: { maxOutboundBytes: 16_384 } })
    const { client: ann } = await connect('ann', { plaintext: true })
    const bob = await connect('bob', { plaintext: true, highWaterBytes: 4_096 })
    const slow: unknown[] = []
    engine.on('slowConsumer', ({ connection, action }) => slow.push([connection.uid, action]))
    bob.pair.client.pauseReading()
    for (let count = 0; count < 20; count++) await ann.send({ ...TEAM, payload: 'x'.repeat(2_000) })
    bob.pair.client.resumeReading()
    await clock.settle()
    await ann.send({ ...TEAM, payload: 'y' })
    await clock.settle()
    const seqs = bob.client.messages.map((message) => message.messageSeq)
    expect(seqs.length).toBeLessThan(21)
    expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b))
    expect(seqs.at(-1)).toBe(21)
    expect(slow).toEqual([['bob', 'skipped']])
    expect(engine.connections.list({ uid: 'bob' })).toHaveLength(1)
  })

  it('is cut as well when it only asks and never reads the answers', async () => {
    const { engine, connect, clock } = await stage({ limits: { maxOutboundBytes: 1_024 } })
    const { client, pair } = await connect('ann', { highWaterBytes: 256 })
    pair.client.pauseReading()
    for (let round = 0; round < 5; round++) {
      for (let count = 0; count < 1_000; count++) client.write({ type: FrameType.PING })
      await clock.settle()
    }
    expect(engine.connections.list()).toEqual([])
  })
})
