import { describe, expect, it } from 'vitest'
import { ChannelType, memoryStorage, ReasonCode, refuse, type AppendBatch, type Message, type MessageStore } from 'imengine'
import { FrameFlag } from 'imengine/protocol'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const SEND = { ...TEAM, payload: 'hi' }

describe('EventChannelDistribute', () => {
  it('runs preCheck, store, replicate, acknowledge and postProcess, in that order', async () => {
    const { engine } = await stage()
    expect(engine.steps('EventChannelDistribute')).toEqual(['preCheck', 'store', 'replicate', 'acknowledge', 'postProcess'])
  })

  // P2
  it('answers 15 when the store throws or rejects, and gives the next message the next free seq', async () => {
    let behave: ((batches: readonly AppendBatch[]) => never | Promise<never>) | undefined
    const storage = memoryStorage()
    const append: MessageStore['append'] = (batches) => behave?.(batches) ?? storage.messages.append(batches)
    const { connect, errors, clock } = await stage({ storage: storageWith(storage, { append }) })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    expect(await ann.send(SEND)).toMatchObject({ messageSeq: 1 })
    behave = () => { throw new Error('disk full') }
    expect(await ann.send(SEND)).toMatchObject({ reasonCode: ReasonCode.SystemError, messageID: '0', messageSeq: 0 })
    behave = () => Promise.reject(new Error('disk full'))
    expect((await bob.send(SEND)).reasonCode).toBe(ReasonCode.SystemError)
    behave = undefined
    expect(await bob.send(SEND)).toMatchObject({ reasonCode: 1, messageSeq: 2 })
    await clock.settle()
    expect(errors).toMatchObject([
      { code: 'IM_STORE_UNAVAILABLE', context: { step: 'store', channelID: 'team' } },
      { code: 'IM_STORE_UNAVAILABLE' },
    ])
    expect(bob.messages.map((m) => m.messageSeq)).toEqual([1])
    expect(ann.messages.map((m) => m.messageSeq)).toEqual([2])
  })

  // P5
  it('answers 15 when the store hangs, within the step’s time-out, and the channel goes on', async () => {
    let hang = true
    const storage = memoryStorage()
    const append: MessageStore['append'] = (batches) => (hang ? new Promise(() => undefined) : storage.messages.append(batches))
    const { engine, connect, clock, errors } = await stage({ storage: storageWith(storage, { append }) })
    const { client } = await connect('ann')
    const hanging = client.send(SEND)
    await clock.settle()
    hang = false
    await clock.advance(engine.limits.stepTimeoutMs + 200)
    expect((await hanging).reasonCode).toBe(ReasonCode.SystemError)
    expect(await client.send(SEND)).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    expect(errors).toMatchObject([{ code: 'IM_STORE_UNAVAILABLE', context: { step: 'store' } }])
  })

  // P1
  it('tells the truth about a message that a late store has kept after all: the repeat gets its seq', async () => {
    const gate = deferred()
    const storage = memoryStorage()
    let slow = true
    const append: MessageStore['append'] = (batches) =>
      slow ? gate.promise.then(() => storage.messages.append(batches)) : storage.messages.append(batches)
    const { engine, connect, clock } = await stage({ storage: storageWith(storage, { append }) })
    const { client } = await connect('ann')
    const first = client.send({ ...SEND, clientMsgNo: 'n' })
    await clock.advance(engine.limits.stepTimeoutMs + 200)
    expect((await first).reasonCode).toBe(ReasonCode.SystemError)
    slow = false
    gate.resolve()
    await clock.settle()
    expect(await client.send({ ...SEND, clientMsgNo: 'n' })).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    expect(await engine.messages.lastSeq(TEAM)).toBe(1)
  })

  // P2
  it('catches a store that miscounts, before anyone is told a wrong number', async () => {
    const storage = memoryStorage()
    let results: unknown
    const { connect, errors } = await stage({ storage: storageWith(storage, { append: () => results as never }) })
    const { client } = await connect('ann')
    for (const wrong of [[], [[]], [[{ status: 'stored', messageID: '1', messageSeq: 0 }]], [[{ status: 'stored', messageID: '1', messageSeq: 1.5 }]]]) {
      results = wrong
      expect((await client.send(SEND)).reasonCode).toBe(ReasonCode.SystemError)
    }
    expect(errors.map((error) => error.code)).toEqual(Array(4).fill('IM_STORE_CONTRACT'))
  })

  it('takes what waits for a channel as one batch, and lets other channels pass a slow one', async () => {
    const gate = deferred()
    const storage = memoryStorage()
    const batches: string[] = []
    const append: MessageStore['append'] = (given) => {
      batches.push(`${given[0]!.key.channelID} ${given[0]!.messages.length}`)
      const write = (): ReturnType<MessageStore['append']> => storage.messages.append(given)
      return given[0]!.key.channelID === 'team' ? gate.promise.then(write) : write()
    }
    const { engine, connect, clock } = await stage({ storage: storageWith(storage, { append }) })
    await engine.channels.create({ channelID: 'other', channelType: ChannelType.Group }, { subscribers: ['ann'] })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const slow = [ann.send(SEND)]
    await clock.settle()
    slow.push(ann.send(SEND), bob.send(SEND), ann.send(SEND))
    await clock.settle()
    expect(await ann.send({ ...SEND, channelID: 'other' })).toMatchObject({ messageSeq: 1 })
    gate.resolve()
    expect((await Promise.all(slow)).map((ack) => ack.messageSeq).sort()).toEqual([1, 2, 3, 4])
    expect(batches).toEqual(['team 1', 'other 1', 'team 3'])
  })

  it('refuses only the message that a host’s handler cannot bear, not the others of its batch', async () => {
    const { engine, connect, clock, errors } = await stage()
    const gate = deferred()
    let closed = true
    engine.use('EventChannelDistribute', async function hold() { if (closed) await gate.promise }, { before: 'preCheck' })
    engine.use('EventChannelDistribute', function fragile(ctx) {
      if (ctx.messages.some((message) => Buffer.from(message.payload).toString() === 'poison')) throw new Error('bug')
    })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const first = ann.send(SEND)
    await clock.settle()
    const rest = [bob.send(SEND), ann.send({ ...SEND, payload: 'poison' }), bob.send(SEND)]
    await clock.settle()
    closed = false
    gate.resolve()
    expect(await first).toMatchObject({ messageSeq: 1 })
    const reasons = (await Promise.all(rest)).map((ack) => ack.reasonCode)
    expect(reasons).toEqual([1, ReasonCode.SystemError, 1])
    expect(await engine.messages.lastSeq(TEAM)).toBe(3)
    expect(errors).toMatchObject([{ code: 'IM_HANDLER_FAILED', context: { step: 'fragile' } }])
  })

  it.each([
    [false, 1],
    [true, 2],
  ])('asks a store again about a repeat that comes soon only when it knows repeats itself (%s)', async (knowsRepeats, askedCount) => {
    const storage = memoryStorage()
    const asked: number[] = []
    const append: MessageStore['append'] = async (batches) => {
      asked.push(batches[0]!.messages.length)
      return storage.messages.append(batches)
    }
    const { connect, clock } = await stage({ storage: storageWith(storage, { append, knowsRepeats }) })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const [first, second] = [await ann.send({ ...SEND, clientMsgNo: 'n' }), await ann.send({ ...SEND, clientMsgNo: 'n' })]
    await clock.settle()
    expect([second.reasonCode, second.messageID]).toEqual([1, first.messageID])
    expect(asked).toHaveLength(askedCount)
    expect(bob.messages).toHaveLength(1)
  })

  it('answers a repeat with the original ids even when the rest of its batch fails, and delivers nothing unpersisted then', async () => {
    const storage = memoryStorage()
    let broken = false
    const append: MessageStore['append'] = async (batches) => {
      if (broken) throw new Error('disk full')
      return storage.messages.append(batches)
    }
    const { engine, connect, clock } = await stage({ storage: storageWith(storage, { append }) })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const first = await ann.send({ ...SEND, clientMsgNo: 'n' })
    broken = true
    const batch = [
      { ...SEND, clientMsgNo: 'n' },
      { ...SEND, clientMsgNo: 'u', flags: FrameFlag.NoPersist },
      { ...SEND, clientMsgNo: 'p' },
    ]
    const acks = await Promise.all(batch.map((message) => ann.send(message)))
    expect(acks.map((ack) => [ack.reasonCode, ack.messageID])).toEqual([[1, first.messageID], [15, '0'], [15, '0']])
    broken = false
    const remove = engine.use('EventChannelDistribute', function no() { return refuse(ReasonCode.NotAllowSend) })
    expect(await ann.send({ ...SEND, clientMsgNo: 'n' })).toMatchObject({ reasonCode: 1, messageID: first.messageID })
    expect((await ann.send({ ...SEND, clientMsgNo: 'u', flags: FrameFlag.NoPersist })).reasonCode).toBe(ReasonCode.NotAllowSend)
    remove()
    // Refused before, so this is no repeat.
    expect((await ann.send({ ...SEND, clientMsgNo: 'u', flags: FrameFlag.NoPersist })).reasonCode).toBe(1)
    await clock.settle()
    expect(bob.messages.map((message) => message.messageSeq)).toEqual([1, 0])
  })

  it('runs an unpersisted message that shared a batch with a bad one again, and does not take it for its own repeat', async () => {
    const { engine, connect, clock } = await stage()
    engine.use('EventChannelDistribute', function fragile(ctx) {
      if (ctx.messages.some((message) => Buffer.from(message.payload).toString() === 'poison')) throw new Error('bug')
    })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const acks = await Promise.all(['fine', 'poison'].map((payload) => ann.send({ ...SEND, payload, flags: FrameFlag.NoPersist })))
    await clock.settle()
    expect(acks.map((ack) => ack.reasonCode)).toEqual([1, ReasonCode.SystemError])
    expect(bob.messages.map((message) => message.text)).toEqual(['fine'])
  })

  it('lets a handler refuse one message of the batch with its own reason', async () => {
    const { engine, connect } = await stage()
    engine.use('EventChannelDistribute', function noShouting(ctx) {
      for (const message of ctx.messages) if (/^[A-Z]+$/.test(Buffer.from(message.payload).toString())) ctx.refuse(message, ReasonCode.NotAllowSend)
    })
    const { client } = await connect('ann')
    const acks = await Promise.all(['one', 'LOUD', 'two'].map((payload) => client.send({ ...SEND, payload })))
    expect(acks.map((ack) => [ack.reasonCode, ack.messageSeq])).toEqual([[1, 1], [ReasonCode.NotAllowSend, 0], [1, 2]])
  })

  for (const [name, fail] of [
    ['throws', () => { throw new Error('bug') }],
    ['refuses', () => ({ kind: 'refuse', reasonCode: ReasonCode.NotAllowSend, message: undefined }) as const],
    ['hangs', () => new Promise<void>(() => undefined)],
  ] as const) {
    it(`acknowledges and delivers what is stored, although a handler behind the store ${name}`, async () => {
      const { engine, connect, clock, errors } = await stage()
      engine.use('EventChannelDistribute', fail, { after: 'store', name: 'late' })
      const { client: ann } = await connect('ann')
      const { client: bob } = await connect('bob')
      const answer = ann.send(SEND)
      await clock.advance(engine.limits.stepTimeoutMs + 200)
      expect(await answer).toMatchObject({ reasonCode: 1, messageSeq: 1 })
      expect(await bob.nextRecv()).toMatchObject({ messageSeq: 1 })
      expect(errors).toMatchObject([{ context: { step: 'late' } }])
    })
  }

  it('keeps a message that is acknowledged although the members cannot be read', async () => {
    const storage = memoryStorage()
    let broken = false
    const channels = new Proxy(storage.channels, {
      get: (target, name: keyof typeof storage.channels) =>
        name === 'members' && broken ? () => Promise.reject(new Error('down')) : target[name].bind(target),
    })
    const { engine, connect, errors } = await stage({ storage: { ...storage, channels }, limits: { subscriberCacheMs: 0 } })
    const { client } = await connect('ann')
    broken = true
    expect(await client.send(SEND)).toMatchObject({ reasonCode: 1, messageSeq: 1 })
    await client.ping()
    expect(errors).toMatchObject([{ code: 'IM_DIRECTORY_UNAVAILABLE' }])
    const kept: Message[] = []
    for await (const message of engine.messages.range(TEAM)) kept.push(message)
    expect(kept).toHaveLength(1)
  })

  it('tells messageStored in seq order, and goes on when a listener throws', async () => {
    const { engine, connect, errors } = await stage()
    const seqs: number[] = []
    engine.on('messageStored', () => { throw new Error('listener') })
    engine.on('messageStored', ({ messages }) => seqs.push(...messages.map((m) => m.messageSeq)))
    const { client } = await connect('ann')
    for (let count = 0; count < 3; count++) await client.send(SEND)
    expect(seqs).toEqual([1, 2, 3])
    expect(errors.map((error) => error.code)).toEqual(Array(3).fill('IM_LISTENER_FAILED'))
  })
})

describe('EventPushOnline', () => {
  it('tells offlineMessage for members who are nowhere, while somebody listens', async () => {
    const { engine, connect, clock } = await stage()
    const offline: unknown[] = []
    engine.on('offlineMessage', ({ uids, messages }) => offline.push([uids, messages.map((m) => m.messageSeq)]))
    const { client } = await connect('ann')
    await connect('bob')
    await client.send(SEND)
    await clock.settle()
    expect(offline).toEqual([[['cat'], [1]]])
  })

  it('reaches every member of a large channel, page by page, in order', async () => {
    const { engine, connect, clock } = await stage({ limits: { subscriberPageCount: 2, maxCachedMembers: 3 } })
    const uids = ['u1', 'u2', 'u3', 'u4', 'u5']
    await engine.channels.create({ channelID: 'big', channelType: ChannelType.Group }, { subscribers: uids })
    const clients = await Promise.all(uids.map(async (uid) => (await connect(uid)).client))
    for (let count = 0; count < 3; count++) await clients[0]!.send({ channelID: 'big', channelType: 2, payload: 'x' })
    await clock.settle()
    expect(clients.map((client) => client.messages.map((m) => m.messageSeq))).toEqual([[], ...Array<number[]>(4).fill([1, 2, 3])])
  })

  it('delivers to a new member from the next message on, and no more to one who was removed', async () => {
    const { engine, connect, clock } = await stage()
    const { client: ann } = await connect('ann')
    const { client: dan } = await connect('dan')
    await ann.send(SEND)
    await engine.channels.subscribers.add(TEAM, ['dan'])
    await ann.send(SEND)
    await engine.channels.subscribers.remove(TEAM, ['dan'])
    await ann.send(SEND)
    await clock.settle()
    expect(dan.messages.map((m) => m.messageSeq)).toEqual([2])
  })

  it('shares the bytes of a RECV between plain receivers of one version, and makes others their own', async () => {
    const { engine, connect, clock } = await stage({ plaintext: 'allow' })
    await engine.channels.subscribers.add(TEAM, ['dan'])
    const { client: ann } = await connect('ann')
    const bob = await connect('bob', { plaintext: true })
    const cat = await connect('cat', { plaintext: true })
    const dan = await connect('dan')
    await ann.send(SEND)
    await clock.settle()
    expect(bob.pair.sentChunks.at(-1)).toBe(cat.pair.sentChunks.at(-1))
    expect(dan.client.messages[0]?.text).toBe('hi')
    expect(dan.client.messages[0]?.msgKey).not.toBe(bob.client.messages[0]?.msgKey)
  })
})
