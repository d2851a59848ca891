import { describe, expect, it } from 'vitest'
import { ChannelType, memoryPeerHub, memoryReplicatorHub, memoryStorage, type IMEngineOptions, type Limits, type MemoryStorage } from 'imengine'
import type { FakeClock } from 'imengine/testing'
import { FrameType } from '../../src/model/frames.ts'
import { deferred, stage } from '../support.ts'

const BIG = { channelID: 'big', channelType: ChannelType.Group }
const hi = { ...BIG, fromUID: 'host', payload: Buffer.from('hi') }
const uidsOf = (count: number): string[] => Array.from({ length: count }, (_, index) => `u${String(index).padStart(6, '0')}`)

/** A storage whose member lists take `delay` for every page, and count what has been read. */
function slowPages(delay: () => Promise<unknown>): { storage: MemoryStorage; reads: number[] } {
  const storage = memoryStorage()
  const members = storage.channels.members.bind(storage.channels)
  const reads: number[] = []
  storage.channels.members = (key, query) => {
    if (key.channelID !== BIG.channelID) return members(key, query)
    reads.push(reads.length)
    return delay().then(() => members(key, query))
  }
  return { storage, reads }
}

/** Where the clock of a stage is put once there is one. */
interface Time {
  clock?: FakeClock
}

const after = (time: Time, ms: number) => () => new Promise<undefined>((resolve) => time.clock!.setTimer(ms, () => resolve(undefined)))

async function big(count: number, options: Partial<IMEngineOptions> & { limits?: Partial<Limits> }) {
  const made = await stage({ ...options, limits: { subscriberPageCount: 1, maxCachedMembers: 0, ...options.limits } })
  await made.engine.channels.create(BIG, { subscribers: uidsOf(count) })
  return made
}

describe('a large channel', () => {
  it('tells of a message that was deleted for a user, or edited, behind the message itself', async () => {
    const gate = deferred()
    const { storage } = slowPages(() => gate.promise)
    const { engine, connect } = await big(1, { storage })
    const { client } = await connect('u000000')
    const { messageID } = await engine.messages.send(hi)
    const { messageID: edited } = await engine.messages.send(hi)
    await engine.messages.deleteFor('u000000', [messageID])
    const editing = engine.messages.edit(edited, Buffer.from('hello'))
    gate.resolve()
    await editing
    await engine.messages.send({ ...hi, payload: Buffer.from('end') })
    for (let recv = await client.nextRecv(); recv.text !== 'end'; recv = await client.nextRecv());
    const seen = client.received.flatMap<string | number>((frame) => {
      if (frame.type === FrameType.RECV) return [frame.messageSeq]
      return frame.type === FrameType.EVENT ? [frame.eventType] : []
    })
    expect(seen).toEqual([1, 2, 'message.deleted', 'message.edited', 3])
  })

  it('is read no faster than its pushes go out: a few pages wait, however many there are', async () => {
    const { storage, reads } = slowPages(() => Promise.resolve())
    const made = await big(60, { storage })
    const gates: (() => void)[] = []
    const pushed: string[] = []
    made.engine.use('EventPushOnline', async function slow(ctx) {
      const gate = deferred()
      gates.push(gate.resolve)
      await gate.promise
      pushed.push(...ctx.uids)
    })
    await made.engine.messages.send(hi)
    await made.clock.settle()
    expect(reads).toHaveLength(8)
    let most = 0
    while (pushed.length < 60) {
      gates.shift()!()
      await made.clock.settle()
      most = Math.max(most, reads.length - pushed.length)
    }
    expect(most).toBeLessThanOrEqual(12) // a batch of pushes counts until its last one has gone
    expect(pushed).toEqual(uidsOf(60))
    expect(reads).toHaveLength(60)
  })

  it('is not cut off while it makes progress, however long that takes, and later messages come behind it', async () => {
    const time: Time = {}
    const { storage } = slowPages(after(time, 2_000))
    const made = await big(20, { storage })
    time.clock = made.clock
    const last = await made.connect('u000019')
    for (let index = 0; index < 3; index++) await made.engine.messages.send(hi) // nobody who sends waits for that
    await made.clock.advance(39_000)
    expect(last.client.messages).toEqual([])
    await made.clock.advance(1_100)
    expect(last.client.messages.map(({ messageSeq }) => messageSeq)).toEqual([1])
    await made.clock.advance(40_000)
    expect(last.client.messages.map(({ messageSeq }) => messageSeq)).toEqual([1, 2, 3]) // together: who gathers meanwhile is read for once
    expect(made.errors).toEqual([])
  })

  it('whose next page does not come in time is given up, told once, and nothing of it comes later', async () => {
    const hang = deferred()
    let count = 0
    const { storage } = slowPages(() => (++count === 3 ? hang.promise : Promise.resolve()))
    const made = await big(4, { storage })
    const undelivered: number[] = []
    made.engine.on('undelivered', ({ messages }) => undelivered.push(...messages.map(({ messageSeq }) => messageSeq)))
    const [early, late] = [await made.connect('u000000'), await made.connect('u000003')]
    await made.engine.messages.send(hi)
    await made.clock.advance(made.engine.limits.stepTimeoutMs + 200)
    expect(made.errors).toMatchObject([{ code: 'IM_DIRECTORY_UNAVAILABLE', context: { event: 'EventChannelDistribute', step: 'postProcess', channelID: 'big' } }])
    expect(undelivered).toEqual([1])
    await made.engine.messages.send(hi)
    await made.clock.settle()
    hang.resolve()
    await made.clock.settle()
    expect(early.client.messages.map(({ messageSeq }) => messageSeq)).toEqual([1, 2])
    expect(late.client.messages.map(({ messageSeq }) => messageSeq)).toEqual([2])
    expect(made.errors).toHaveLength(1)
  })

  // P3
  it('gives every member every message once and in order, with slow pages and slow pushes', async () => {
    const time: Time = {}
    let state = 7
    const random = (): number => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648)
    const { storage } = slowPages(() => (random() % 3 === 0 ? after(time, random() % 300)() : Promise.resolve()))
    const made = await big(40, { storage, limits: { subscriberPageCount: 2 } })
    time.clock = made.clock
    made.engine.use('EventPushOnline', function jitter() {
      return random() % 4 === 0 ? after(time, random() % 200)() : undefined
    })
    const clients = await Promise.all(['u000000', 'u000017', 'u000039'].map((uid) => made.connect(uid)))
    for (let index = 0; index < 30; index++) {
      await made.engine.messages.send(hi)
      if (random() % 2 === 0) await made.clock.advance(random() % 400)
    }
    await made.clock.advance(200_000)
    const expected = Array.from({ length: 30 }, (_, index) => index + 1)
    for (const { client } of clients) expect(client.messages.map(({ messageSeq }) => messageSeq)).toEqual(expected)
    expect(made.errors).toEqual([])
  })

  it('at the end of the engine keeps nobody waiting: what has not been handed over is told as undelivered', async () => {
    const { storage } = slowPages(() => new Promise(() => undefined))
    const made = await big(4, { storage })
    const undelivered: number[] = []
    made.engine.on('undelivered', ({ messages }) => undelivered.push(messages.length))
    await made.engine.messages.send(hi)
    const closing = made.engine.close({ drainMs: 0 })
    await made.clock.advance(made.engine.limits.closeTimeoutMs)
    await closing
    expect(undelivered).toEqual([1])
  })
})

describe('with a log', () => {
  it('a large channel holds up neither the log nor other channels, and keeps its order', async () => {
    const time: Time = {}
    const { storage } = slowPages(after(time, 1_000))
    const hub = memoryReplicatorHub()
    const made = await big(12, { storage, replicator: hub.replicator(), peerPush: memoryPeerHub().peer() })
    time.clock = made.clock
    await made.engine.channels.create({ channelID: 'small', channelType: ChannelType.Group }, { subscribers: ['u000011'] })
    const { client } = await made.connect('u000011')
    for (let index = 0; index < 2; index++) await made.engine.messages.send(hi)
    await made.engine.messages.send({ ...hi, noPersist: true })
    await made.engine.messages.send({ ...hi, channelID: 'small' })
    expect((await client.nextRecv()).channelID).toBe('small')
    await made.clock.advance(100_000)
    expect(client.messages.map(({ channelID, messageSeq }) => `${channelID} ${messageSeq}`)).toEqual(['small 1', 'big 1', 'big 2', 'big 0'])
    expect(made.errors).toEqual([])
  })
})
