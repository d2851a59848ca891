import { Readable } from 'node:stream'
import { describe, expect, it, vi } from 'vitest'
import { FrameFlag, IMEngine, MemberRole, allowAnyToken, memoryOutbox, memoryPresence, memoryReplicatorHub, memoryStorage, ReasonCode, type Facts, type LogEntry, type Outbox, type Replicator, type ReplicatorHost, type Storage, type Webhook, type WebhookEvent } from 'imengine'
import { FakeClock, seededRandom } from 'imengine/testing'
import { deferred, stage, storageWith, TEAM } from '../support.ts'

const text = (payload: Uint8Array): string => Buffer.from(payload).toString()

/** Remembers what it is told, unless it is down. */
function listener(events?: Webhook['events']) {
  const told: WebhookEvent[] = []
  const far = {
    told,
    isDown: false,
    texts: () => told.flatMap((event) => (event.event === 'msg.notify' ? event.messages.map(({ payload }) => text(payload)) : [])),
  }
  const webhook: Webhook = {
    ...(events !== undefined && { events }),
    notify: (given) => {
      if (far.isDown) throw new Error('down')
      told.push(...given)
    },
  }
  return { webhook, far }
}

const AT_ONCE = { webhookBatchMs: 0 }
const QUICK = { events: ['msg.notify'] as const, limits: AT_ONCE }

/** An outbox whose additions become durable when the test says so. */
function slowOutbox(inner: Outbox = memoryOutbox()) {
  const adds: ReturnType<typeof deferred<void>>[] = []
  const outbox: Outbox = {
    add: async (lane, entries) => {
      const added = deferred()
      adds.push(added)
      await added.promise
      return inner.add(lane, entries)
    },
    list: (lane, query) => inner.list(lane, query),
    remove: (lane, ids) => inner.remove(lane, ids),
    count: () => inner.count(),
  }
  return { outbox, adds }
}

describe('webhook.notify', () => {
  it('is told what was stored, channel by channel in order, and who came and went, user by user', async () => {
    const { webhook, far } = listener()
    const { connect, clock } = await stage({ webhook })
    const { client, pair } = await connect('ann')
    await client.send({ ...TEAM, payload: 'one' })
    await client.send({ ...TEAM, payload: 'two' })
    pair.client.end()
    await clock.advance(300) // webhookBatchMs, and a tick
    const stored = far.told.flatMap((event) => (event.event === 'msg.notify' ? event.messages : []))
    expect(stored.map(({ messageSeq, fromUID, channelID, payload }) => [messageSeq, fromUID, channelID, text(payload)])).toEqual([
      [1, 'ann', 'team', 'one'],
      [2, 'ann', 'team', 'two'],
    ])
    const status = far.told.flatMap((event) => (event.event === 'user.onlinestatus' ? [[event.uid, event.online, event.onlineCount]] : []))
    expect(status).toEqual([['ann', true, 1], ['ann', false, 0]])
  })

  it('holds up no SENDACK, no push and no PONG while it hangs', async () => {
    const { connect, clock } = await stage({ webhook: { notify: () => new Promise(() => undefined) }, limits: AT_ONCE })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    expect((await ann.send({ ...TEAM, payload: 'one' })).messageSeq).toBe(1)
    await clock.settle()
    expect((await ann.send({ ...TEAM, payload: 'two' })).messageSeq).toBe(2)
    expect([(await bob.nextRecv()).text, (await bob.nextRecv()).text]).toEqual(['one', 'two'])
    await ann.ping()
  })

  it('is not told of repeats, of refused messages and of what is stored nowhere', async () => {
    const { webhook, far } = listener(['msg.notify'])
    const { engine, connect, clock } = await stage({ webhook, limits: AT_ONCE })
    engine.use('EventChannelDistribute', function noSpam(ctx) {
      for (const message of ctx.messages) if (text(message.payload) === 'spam') ctx.refuse(message, ReasonCode.NotAllowSend)
    })
    const { client } = await connect('ann')
    await client.send({ ...TEAM, payload: 'one', clientMsgNo: 'n' })
    await client.send({ ...TEAM, payload: 'one', clientMsgNo: 'n' })
    await client.send({ ...TEAM, payload: 'spam' })
    await client.send({ ...TEAM, payload: 'passing by', flags: FrameFlag.NoPersist })
    await clock.advance(500)
    expect(far.texts()).toEqual(['one'])
  })

  it('is told as often as it is down, and then of everything: nothing is lost, and order per channel is kept', async () => {
    const { webhook, far } = listener(['msg.notify'])
    const { engine, clock, errors } = await stage({ webhook, limits: AT_ONCE })
    far.isDown = true
    const sent: string[] = []
    for (let n = 0; n < 60; n++) {
      const payload = `${n % 5}/${n}`
      sent.push(payload)
      await engine.messages.send({ channelID: `reader ${n % 5}`, channelType: 1, fromUID: 'ann', payload: Buffer.from(payload) })
      await clock.advance(1_000)
    }
    far.isDown = false
    await clock.advance(120_000)
    const inRoom = (texts: readonly string[], room: number): string[] => texts.filter((payload) => payload.startsWith(`${room}/`))
    for (let room = 0; room < 5; room++) expect(inRoom(far.texts(), room)).toEqual(inRoom(sent, room))
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['IM_WEBHOOK_FAILED']))
  })

  it('with a replicator is told when the log is applied', async () => {
    const { webhook, far } = listener(['msg.notify'])
    const { engine, clock } = await stage({ webhook, limits: AT_ONCE, replicator: memoryReplicatorHub().replicator() })
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('through the log') })
    await clock.advance(300)
    expect(far.texts()).toEqual(['through the log'])
  })
})

interface KeptLog {
  readonly entries: LogEntry[]
  /** entries before this are not there any more: who has not come so far begins with another node's copy */
  firstIndex?: number
  /** from here on an entry is in the log, and whoever has proposed it dies before it hears of that */
  crashIndex?: number
}

/** A node's way to a log beside the engines, as servers keep one: a node that starts is given what it does not have before `start` resolves. */
function followerOf(log: KeptLog): Replicator {
  let host: ReplicatorHost | undefined
  const apply = async (index: number) => host!.apply([log.entries[index - 1]!], { log: 'log', index })
  return {
    start: async (given) => {
      host = given
      if ((await given.logPosition!('log')) + 1 < (log.firstIndex ?? 1)) await given.restore!(Readable.from([]))
      for (let index = (await given.logPosition!('log')) + 1; index <= log.entries.length; index++) await apply(index)
    },
    propose: async (key, messages, signal) => {
      const index = log.entries.push({ key, messages: [...messages], nodeID: host!.nodeID })
      if (index !== log.crashIndex) return (await apply(index))[0]!
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('nobody waits', { cause: signal.reason }))))
    },
    close: () => undefined,
  }
}

describe('a node that comes back to a log', () => {
  const told = (events: readonly WebhookEvent[]): string[] =>
    events.flatMap((event) => {
      if (event.event === 'msg.notify') return event.messages.map(({ payload }) => `stored ${text(payload)}`)
      return event.event === 'msg.offline' ? [`offline ${text(event.message.payload)}`] : []
    })

  /** The log has brought the channel long ago. */
  async function folder(): Promise<Storage> {
    const storage = memoryStorage()
    await storage.channels.putMembers(TEAM, ['ann', 'bob'].map((uid) => ({ uid, role: MemberRole.Member })))
    return storage
  }

  /** A life of node 1. */
  async function life(storage: Storage, log: KeptLog) {
    const { webhook, far } = listener(['msg.notify', 'msg.offline'])
    const { engine, clock } = await stage({ webhook, limits: AT_ONCE, storage, presence: memoryPresence(), replicator: followerOf(log) })
    await clock.advance(1_000 * (log.entries.length + 1)) // behind its earlier life, whose messageIDs it would give again
    return {
      told: () => told(far.told).toSorted(),
      send: async (payload: string) => {
        engine.messages.send({ ...TEAM, fromUID: 'ann', clientMsgNo: payload, payload: Buffer.from(payload) }).catch(() => undefined)
        await clock.advance(1_000)
      },
      end: async () => {
        const closing = engine.close({ drainMs: 0 })
        await clock.advance(engine.limits.closeTimeoutMs + 1_000)
        await closing
      },
    }
  }

  it('under its nodeID with an empty folder: tells nothing again of what its earlier life has told, and all that is new', async () => {
    const log: KeptLog = { entries: [] }
    const first = await life(await folder(), log)
    await first.send('old')
    expect(first.told()).toEqual(['offline old', 'stored old'])
    await first.end()
    const storage = await folder()
    const second = await life(storage, log)
    expect(await storage.messages.lastSeq(TEAM)).toBe(1)
    expect(second.told()).toEqual([])
    await second.send('new')
    expect(second.told()).toEqual(['offline new', 'stored new'])
  })

  it('under its nodeID with another node’s copy, in place of a folder that was too old: tells nothing again either', async () => {
    const log: KeptLog = { entries: [] }
    const first = await life(await folder(), log)
    for (const payload of ['one', 'two', 'three']) await first.send(payload)
    await first.end()
    log.firstIndex = 3
    const storage = await folder()
    await storage.messages.append([log.entries[0]!], { log: 'log', index: 1 })
    const restore = async (): Promise<void> => void (await storage.messages.append([log.entries[1]!], { log: 'log', index: 2 }))
    const second = await life({ ...storage, restore }, log)
    expect(await storage.messages.lastSeq(TEAM)).toBe(3)
    expect(second.told()).toEqual([])
  })

  it('in its own folder after a crash: tells what it had proposed and not told', async () => {
    const log: KeptLog = { entries: [], crashIndex: 2 }
    const storage = await folder()
    const first = await life(storage, log)
    await first.send('before')
    await first.send('proposed')
    await first.end()
    expect(first.told()).toEqual(['offline before', 'stored before'])
    const second = await life(storage, log)
    expect(second.told()).toEqual(['offline proposed', 'stored proposed'])
  })
})

describe('the outbox', () => {
  it.each<[who: string, webhook: Webhook]>([
    ['there is no notify', { beforeSend: () => ({ code: 0 }) }],
    ['notify does not want messages', { events: ['user.onlinestatus'], notify: () => undefined }],
  ])('is not written to for a message when %s', async (_who, webhook) => {
    const storage = memoryStorage()
    const { connect, clock } = await stage({ webhook, storage })
    const { client } = await connect('ann')
    await clock.advance(300)
    const add = vi.spyOn(storage.outbox, 'add')
    expect((await client.send({ ...TEAM, payload: 'x' })).reasonCode).toBe(ReasonCode.Success)
    await clock.advance(300)
    expect(add).not.toHaveBeenCalled()
  })

  it('is written to before the store, which is asked only when that is durable', async () => {
    const { outbox, adds } = slowOutbox()
    const memory = memoryStorage()
    const append = vi.spyOn(memory.messages, 'append')
    const { webhook, far } = listener(['msg.notify'])
    const { connect, clock } = await stage({ webhook, limits: AT_ONCE, storage: { ...memory, outbox } })
    const { client } = await connect('ann')
    const sendack = client.send({ ...TEAM, payload: 'x' })
    await clock.settle()
    expect([adds.length, append.mock.calls.length]).toEqual([1, 0])
    adds[0]!.resolve()
    expect((await sendack).messageSeq).toBe(1)
    await clock.settle()
    expect(far.texts()).toEqual(['x'])
  })

  it('that precedes the store is written to in the same turn, and SENDACK waits for both', async () => {
    const memory = memoryStorage()
    const { outbox: slow, adds } = slowOutbox()
    const outbox: Outbox = { ...slow, precedes: memory.messages }
    const append = vi.spyOn(memory.messages, 'append')
    const { webhook, far } = listener(['msg.notify'])
    const { connect, clock } = await stage({ webhook, limits: AT_ONCE, storage: { ...memory, outbox } })
    const { client } = await connect('ann')
    let isAcknowledged = false
    const sendack = client.send({ ...TEAM, payload: 'x' }).then((ack) => ((isAcknowledged = true), ack))
    await clock.settle()
    expect([adds.length, append.mock.calls.length, isAcknowledged]).toEqual([1, 1, false])
    expect(far.texts()).toEqual([])
    adds[0]!.resolve()
    expect((await sendack).messageSeq).toBe(1)
    await clock.settle()
    expect(far.texts()).toEqual(['x'])
  })

  it.each<[how: string, add: Outbox['add']]>([
    ['throws', () => { throw new Error('disk full') }],
    ['rejects', () => Promise.reject(new Error('disk full'))],
  ])('that %s refuses the message with 15, and it is stored nowhere', async (_how, add) => {
    const memory = memoryStorage()
    const inner = memory.outbox
    const outbox: Outbox = { add, list: (lane, query) => inner.list(lane, query), remove: () => undefined, count: () => 0 }
    const { webhook } = listener(['msg.notify'])
    const { engine, connect, errors } = await stage({ webhook, storage: { ...memory, outbox } })
    const { client } = await connect('ann')
    expect((await client.send({ ...TEAM, payload: 'x' })).reasonCode).toBe(ReasonCode.SystemError)
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    expect(errors.map(({ code }) => code)).toEqual(['IM_STORE_UNAVAILABLE'])
  })

  it('that fails beside a store that does not: the sender gets 15, and the host hears of the message by facts', async () => {
    const memory = memoryStorage()
    const inner = memory.outbox
    const outbox: Outbox = {
      precedes: memory.messages,
      add: () => Promise.reject(new Error('disk full')),
      list: (lane, query) => inner.list(lane, query), remove: () => undefined, count: () => 0,
    }
    const { webhook } = listener(['msg.notify'])
    const { engine, connect } = await stage({ webhook, storage: { ...memory, outbox } })
    const facts: string[] = []
    engine.on('messageStored', () => facts.push('stored'))
    engine.on('webhookGivenUp', ({ events }) => facts.push(`given up: ${events.length}`))
    const { client } = await connect('ann')
    expect((await client.send({ ...TEAM, payload: 'x', clientMsgNo: 'n' })).reasonCode).toBe(ReasonCode.SystemError)
    expect(facts).toEqual(['stored', 'given up: 1'])
  })

  it('that hangs beyond the step’s time-out: the sender gets 15, and the message is not stored when it answers after all', async () => {
    const { outbox, adds } = slowOutbox()
    const { webhook, far } = listener(['msg.notify'])
    const { engine, connect, clock } = await stage({ webhook, limits: AT_ONCE, storage: { ...memoryStorage(), outbox } })
    const { client } = await connect('ann')
    const sendack = client.send({ ...TEAM, payload: 'x' })
    await clock.advance(engine.limits.stepTimeoutMs + 200)
    expect((await sendack).reasonCode).toBe(ReasonCode.SystemError)
    adds[0]!.resolve()
    await clock.advance(1_000)
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
    expect([far.texts(), outbox.count()]).toEqual([[], 0])
  })

  it('lets go what the store has kept too late, and drops what it has refused', async () => {
    const memory = memoryStorage()
    const hold = deferred()
    let manner: 'late' | 'fails' | 'well' = 'late'
    const storage = storageWith(memory, {
      append: async (batches) => {
        const mannerNow = manner
        if (mannerNow === 'late') await hold.promise
        if (mannerNow === 'fails') throw new Error('disk full')
        return memory.messages.append(batches)
      },
    })
    const { webhook, far } = listener(['msg.notify'])
    const { engine, connect, clock } = await stage({ webhook, limits: AT_ONCE, storage })
    const { client } = await connect('ann')
    const late = client.send({ ...TEAM, payload: 'late' })
    await clock.advance(engine.limits.stepTimeoutMs + 200)
    expect((await late).reasonCode).toBe(ReasonCode.SystemError)
    manner = 'fails'
    expect((await client.send({ ...TEAM, payload: 'never' })).reasonCode).toBe(ReasonCode.SystemError)
    expect(far.texts()).toEqual([])
    hold.resolve()
    await clock.settle()
    manner = 'well'
    await client.send({ ...TEAM, payload: 'well' })
    await clock.advance(300)
    expect(far.texts()).toEqual(['late', 'well'])
    expect(memory.outbox.count()).toBe(0)
  })
})

describe('msg.offline', () => {
  it('names, message by message, the members who are not connected, without the sender; also of what is stored nowhere', async () => {
    const { webhook, far } = listener(['msg.offline'])
    const { engine, connect, clock } = await stage({ webhook, limits: AT_ONCE })
    const { client } = await connect('bob')
    await client.send({ ...TEAM, payload: 'stored' })
    await client.send({ ...TEAM, payload: 'passing by', flags: FrameFlag.NoPersist })
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('from ann') })
    await clock.advance(500)
    const told = far.told.flatMap((event) => (event.event === 'msg.offline' ? [[text(event.message.payload), event.message.messageSeq, event.uids]] : []))
    expect(told).toEqual([['stored', 1, ['ann', 'cat']], ['passing by', 0, ['ann', 'cat']], ['from ann', 2, ['cat']]])
  })

  it('follows the host’s rule of who counts as offline', async () => {
    const { webhook, far } = listener(['msg.offline'])
    const { connect, clock } = await stage({ webhook, limits: AT_ONCE, isOffline: ({ devices }) => devices.every(({ deviceFlag }) => deviceFlag !== 0) })
    const { client } = await connect('ann', { deviceFlag: 0 })
    await connect('bob', { deviceFlag: 1 })
    await client.send({ ...TEAM, payload: 'x' })
    await clock.advance(500)
    expect(far.told).toMatchObject([{ event: 'msg.offline', uids: ['cat', 'bob'] }])
  })
})

/** One life of an engine over what the last one has left. */
function life(storage: Storage, webhook: Webhook, seed: number): Promise<Awaited<ReturnType<typeof stage>>> {
  return stage({ storage, webhook, limits: AT_ONCE, random: seededRandom(seed) })
}

describe('across restarts', () => {
  it('a stop between the store and the webhook, without a word, loses nothing: the next life tells it', async () => {
    const storage = memoryStorage()
    const first = await life(storage, { ...QUICK, notify: () => new Promise(() => undefined) }, 1)
    const { client } = await first.connect('ann')
    for (const payload of ['one', 'two', 'three']) expect((await client.send({ ...TEAM, payload })).reasonCode).toBe(ReasonCode.Success)
    // Nothing of the first life is closed: for the storage it ends here.
    const { webhook, far } = listener(['msg.notify'])
    const second = await life(storage, webhook, 2)
    await second.clock.advance(300)
    expect(far.texts()).toEqual(['one', 'two', 'three'])
    expect(storage.outbox.count()).toBe(0)
  })

  it('a stop before the store has answered tells what it has kept, and nothing else', async () => {
    const memory = memoryStorage()
    let isKept = true
    const storage = storageWith(memory, {
      append: (batches) => {
        if (isKept) void memory.messages.append(batches)
        return new Promise(() => undefined) // the process ends before the answer
      },
    })
    const first = await life(storage, { ...QUICK, notify: () => undefined }, 1)
    void first.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('kept') }).catch(() => undefined)
    await first.clock.settle()
    isKept = false
    void first.engine.messages.send({ channelID: 'zoe', channelType: 1, fromUID: 'ann', payload: Buffer.from('not kept') }).catch(() => undefined)
    await first.clock.settle()
    expect(memory.outbox.count()).toBe(2)
    const { webhook, far } = listener(['msg.notify'])
    const second = await life(memory, webhook, 2)
    await second.clock.advance(300)
    expect(far.texts()).toEqual(['kept'])
    expect(memory.outbox.count()).toBe(0)
  })

  it('an orderly end leaves what has not been told for the next life, in order', async () => {
    const storage = memoryStorage()
    const { webhook: down, far: nobody } = listener(['msg.notify'])
    nobody.isDown = true
    const first = await life(storage, down, 1)
    for (let n = 0; n < 300; n++) await first.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from(String(n)) })
    await first.engine.close()
    const { webhook, far } = listener(['msg.notify'])
    const second = await life(storage, webhook, 2)
    await second.clock.advance(300)
    expect(far.texts()).toEqual(Array.from({ length: 300 }, (_, n) => String(n)))
  })
})

it('a start that fails, because the outbox cannot be read or something else cannot be opened, calls nobody and leaves no timer', async () => {
  for (const fails of ['outbox', 'replicator'] as const) {
    const memory = memoryStorage()
    const first = await life(memory, { ...QUICK, notify: () => new Promise(() => undefined) }, 1)
    await first.engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('x') })
    const count = (): number => { throw new Error('unreadable') }
    const outbox: Outbox = fails === 'outbox' ? { add: () => [], list: () => [], remove: () => undefined, count } : memory.outbox
    const replicator = { start: () => Promise.reject(new Error('no quorum')), propose: () => [], close: () => undefined }
    const notify = vi.fn()
    const clock = new FakeClock()
    const engine = new IMEngine({
      tokenVerifier: allowAnyToken(), clock, storage: { ...memory, outbox }, webhook: { notify }, limits: AT_ONCE,
      ...(fails === 'replicator' && { replicator }),
    })
    await expect(engine.start()).rejects.toThrow()
    await clock.advance(10_000)
    expect(notify).not.toHaveBeenCalled()
    expect(clock.pendingTimerCount).toBe(0)
  }
})

describe('close, with an outbox that ends with the engine', () => {
  function engineWith(webhook: Webhook) {
    const engine = new IMEngine({ tokenVerifier: allowAnyToken(), webhook, limits: { webhookBatchMs: 60_000 } })
    const givenUp: Facts['webhookGivenUp'][0][] = []
    engine.on('webhookGivenUp', (fact) => givenUp.push(fact))
    return { engine, givenUp }
  }

  it('tells what is left without waiting for more', async () => {
    const { webhook, far } = listener()
    const { engine, givenUp } = engineWith(webhook)
    await engine.start()
    await engine.messages.send({ channelID: 'zoe', channelType: 1, fromUID: 'ann', payload: Buffer.from('x') })
    await engine.close()
    expect(far.texts()).toEqual(['x'])
    expect(givenUp).toEqual([])
  })

  it('gives up what the webhook does not take within drainMs, as a fact', async () => {
    const { webhook, far } = listener(['msg.notify'])
    const { engine, clock } = await stage({ webhook })
    const givenUp: Facts['webhookGivenUp'][0][] = []
    engine.on('webhookGivenUp', (fact) => givenUp.push(fact))
    far.isDown = true
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('x') })
    const closing = engine.close({ drainMs: 2_000 })
    await clock.advance(1_900)
    expect(givenUp).toEqual([])
    await clock.advance(200)
    await closing
    expect(givenUp).toMatchObject([{ events: [{ event: 'msg.notify' }], error: { code: 'IM_WEBHOOK_FAILED' } }])
    expect(givenUp[0]!.tryCount).toBeGreaterThan(1)
    expect(clock.pendingTimerCount).toBe(0)
  })
})
