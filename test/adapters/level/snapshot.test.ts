import { MemoryLevel } from 'memory-level'
import { describe, expect, it } from 'vitest'
import { levelStorage, type LevelStorage } from '../../../src/adapters/level/index.ts'
import { sampleMessage } from '../../../src/testing/index.ts'

const ROOM = { channelID: 'room', channelType: 2 }
const OTHER = { channelID: 'other', channelType: 2 }

const sampleMessages = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, index) => sampleMessage(first + index))

function database(): MemoryLevel<Buffer, Buffer> {
  return new MemoryLevel({ keyEncoding: 'buffer', valueEncoding: 'buffer' })
}

async function opened(db = database()): Promise<LevelStorage> {
  const storage = levelStorage({ db })
  await storage.open()
  return storage
}

/** A storage with something of everything, as a log has brought it there. */
async function filled(): Promise<LevelStorage> {
  const storage = await opened()
  const messages = sampleMessages(1, 300).map((message) => ({ ...message, ...ROOM }))
  await storage.messages.append([{ key: ROOM, messages }], { log: 'a', index: 7 })
  await storage.messages.append([{ key: OTHER, messages: [{ ...sampleMessage(301), ...OTHER, payload: Buffer.alloc(600_000, 1) }] }], { log: 'b', index: 3 })
  await storage.messages.revise(ROOM, 2, { kind: 'edited', byUID: 'ann', timestampMs: 5, payload: Buffer.from('new') })
  await storage.channels.putChannel({ ...ROOM, mode: 'muted' })
  await storage.channels.putMembers(ROOM, [{ uid: 'ann', role: 1 }])
  await storage.tokens.putToken('ann', { deviceFlag: 0, digest: Buffer.alloc(32, 9), deviceLevel: 1 })
  await storage.cursors.advance([{ uid: 'ann', key: ROOM, deliveredSeq: 9 }]) // written behind
  await storage.outbox.add(0, [Buffer.from('of the other node')])
  return storage
}

async function bytesOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const chunk of chunks) {
    expect(chunk.length).toBeLessThanOrEqual(256 * 1024)
    all.push(chunk)
  }
  return Buffer.concat(all)
}

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size)
}

async function shown({ messages, channels, cursors, tokens }: LevelStorage) {
  return {
    room: await messages.range(ROOM, { limit: 1_000 }),
    other: await messages.range(OTHER),
    positions: [await messages.logPosition!('a'), await messages.logPosition!('b')],
    info: await channels.channel(ROOM),
    members: (await channels.members(ROOM)).items,
    cursor: await cursors.cursor('ann', ROOM),
    token: await tokens.token('ann', 0),
  }
}

describe('a snapshot', () => {
  it.each([[1_000_000], [777]])('brings everything but the outbox to another node, cut however the way wants it (%i)', async (size) => {
    const source = await filled()
    const target = await opened()
    await target.messages.append([{ key: OTHER, messages: sampleMessages(900, 905).map((message) => ({ ...message, ...OTHER })) }], { log: 'c', index: 1 })
    await target.channels.putMembers(OTHER, [{ uid: 'zoe', role: 0 }])
    await target.outbox.add(0, [Buffer.from('mine')])
    await target.restore(inPieces(await bytesOf(source.snapshot()), size))
    expect(await shown(target)).toEqual(await shown(source))
    expect(await target.messages.logPosition!('c')).toBe(0)
    expect((await target.channels.members(OTHER)).items).toEqual([])
    expect((await target.outbox.list(0, { limit: 10 })).map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(['mine'])
  })

  it('lets the other node know repeats, and go on with the numbers', async () => {
    const source = await filled()
    const target = await opened()
    await target.messages.append([{ key: ROOM, messages: [{ ...sampleMessage(1), ...ROOM, payload: Buffer.from('else') }] }])
    await target.ready()
    await target.restore(source.snapshot())
    const again = { ...sampleMessage(250), ...ROOM }
    const [results] = await target.messages.append([{ key: ROOM, messages: [again, { ...sampleMessage(400), ...ROOM }] }])
    expect(results).toEqual([
      { status: 'duplicate', messageID: again.messageID, messageSeq: 250 },
      { status: 'stored', messageID: sampleMessage(400).messageID, messageSeq: 301 },
    ])
    await target.ready()
    const [later] = await target.messages.append([{ key: ROOM, messages: [{ ...sampleMessage(299), ...ROOM }] }])
    expect(later?.[0]?.status).toBe('duplicate')
  })

  it('is of one moment, whatever is written while it is read', async () => {
    const source = await filled()
    const chunks = source.snapshot()[Symbol.asyncIterator]()
    const first = await chunks.next()
    await source.messages.append([{ key: ROOM, messages: [{ ...sampleMessage(500), ...ROOM }] }], { log: 'a', index: 8 })
    const target = await opened()
    await target.restore(
      (async function* () {
        if (first.done !== true) yield first.value
        yield* { [Symbol.asyncIterator]: () => chunks }
      })(),
    )
    expect(await target.messages.logPosition!('a')).toBe(7)
    expect(await target.messages.lastSeq(ROOM)).toBe(300)
  })

  it('takes the place of what had been advanced and was not written', async () => {
    const target = await filled()
    await target.cursors.advance([{ uid: 'ann', key: ROOM, readSeq: 250 }])
    await target.restore(inPieces(await bytesOf((await filled()).snapshot()), 100_000))
    expect((await target.cursors.cursor('ann', ROOM)).readSeq).toBe(0)
    await target.cursors.flush()
    expect((await target.cursors.cursor('ann', ROOM)).readSeq).toBe(0)
  })

  it.each<[string, (whole: Buffer) => Buffer]>([
    ['ends too soon', (whole) => whole.subarray(0, -1)],
    ['goes on behind its end', (whole) => Buffer.concat([whole, Buffer.alloc(1)])],
    ['lacks rows', (whole) => Buffer.concat([whole.subarray(0, -8), Buffer.from([255, 255, 255, 255, 0, 0, 0, 1])])],
  ])('that %s rejects with IM_STORE_CORRUPT and leaves nothing but the own outbox', async (_name, spoil) => {
    const whole = await bytesOf((await filled()).snapshot())
    const target = await filled()
    await expect(target.restore(inPieces(spoil(whole), 100_000))).rejects.toMatchObject({ code: 'IM_STORE_CORRUPT' })
    expect(await shown(target)).toMatchObject({ room: [], other: [], positions: [0, 0], info: undefined, members: [], token: undefined })
    expect(await target.outbox.count()).toBe(1)
    const [results] = await target.messages.append([{ key: ROOM, messages: [{ ...sampleMessage(1), ...ROOM }] }])
    expect(results?.[0]).toMatchObject({ status: 'stored', messageSeq: 1 })
  })

  it.each<[string, () => AsyncIterable<Uint8Array>]>([
    ['is empty', () => inPieces(Buffer.alloc(0), 1)],
    ['is something else', () => inPieces(Buffer.from('PK this is no snapshot but an archive'), 100)],
    ['cannot be given', async function* () {
      yield Buffer.from('imengine')
      throw new Error('the other node is busy')
    }],
  ])('that %s rejects and changes nothing', async (_name, chunks) => {
    const target = await filled()
    const before = await shown(target)
    await expect(target.restore(chunks())).rejects.toThrow()
    expect(await shown(target)).toEqual(before)
  })

  it.each([[true], [false]])('lets whoever gives it come to an end, whether it is taken or not (%s)', async (isWhole) => {
    const whole = await bytesOf((await filled()).snapshot())
    const target = await opened()
    const ends: string[] = []
    const restored = target.restore(
      (async function* () {
        try {
          yield isWhole ? whole : Buffer.concat([whole, whole])
          ends.push('taken')
        } finally {
          ends.push('over')
        }
      })(),
    )
    await restored.catch(() => undefined)
    expect(ends).toEqual(isWhole ? ['taken', 'over'] : ['over'])
  })

  it('that was being restored when the process ended leaves nothing but the own outbox', async () => {
    const db = database()
    const whole = await bytesOf((await filled()).snapshot())
    const target = await opened(db)
    await target.outbox.add(0, [Buffer.from('mine')])
    let isUnderWay = (): void => undefined
    const underWay = new Promise<void>((resolve) => (isUnderWay = resolve))
    void target.restore(
      (async function* () {
        yield whole.subarray(0, whole.length - 10)
        isUnderWay()
        await new Promise(() => undefined)
      })(),
    )
    await underWay
    const next = await opened(db)
    expect(await shown(next)).toMatchObject({ room: [], other: [], positions: [0, 0], members: [] })
    expect(await next.outbox.count()).toBe(1)
  })
})
