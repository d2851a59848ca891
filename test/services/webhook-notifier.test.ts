import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { memoryOutbox } from '../../src/adapters/memory/outbox.ts'
import type { Facts } from '../../src/contracts/facts.ts'
import type { Outbox } from '../../src/contracts/outbox.ts'
import type { Webhook, WebhookEvent } from '../../src/contracts/webhook.ts'
import { IMError } from '../../src/errors.ts'
import type { Message } from '../../src/model/message.ts'
import { Counters } from '../../src/services/counters.ts'
import { FactEmitter } from '../../src/services/fact-emitter.ts'
import { Waits, withTimeLimit } from '../../src/services/time-limit.ts'
import { TimerWheel } from '../../src/services/timer-wheel.ts'
import { WebhookNotifier, type WebhookNotifierOptions } from '../../src/services/webhook-notifier.ts'
import { FakeClock, recordingLogger, sampleMessage, seededRandom } from '../../src/testing/index.ts'
import { CASES, type Deferred } from '../events/workload.ts'
import { deferred } from '../support.ts'

const online = (uid: string): WebhookEvent => ({ event: 'user.onlinestatus', uid, deviceFlag: 0, online: true, connectionID: '1', deviceOnlineCount: 1, onlineCount: 1 })

/** What an event is about: uids, or texts of messages. */
const subjectsOf = (events: readonly WebhookEvent[]): string[] =>
  events.flatMap((event) => {
    if (event.event === 'user.onlinestatus') return [event.uid]
    if (event.event === 'msg.offline') return [`${Buffer.from(event.message.payload).toString()} for ${event.uids.join()}`]
    return event.messages.map(({ payload }) => Buffer.from(payload).toString())
  })

/** Messages by id, as a store has them. */
class Shelf {
  readonly messages = new Map<string, Message>()
  #count = 0

  put(text: string, over: Partial<Message> = {}): Message {
    const message = sampleMessage(++this.#count, { payload: Buffer.from(text), messageSeq: this.#count, ...over })
    this.messages.set(message.messageID, message)
    return message
  }

  readonly get = (ids: readonly string[]): (Message | undefined)[] => ids.map((id) => this.messages.get(id))
}

interface SetUp extends Partial<WebhookNotifierOptions> {
  readonly shelf?: Shelf
}

function setUp({ shelf = new Shelf(), ...over }: SetUp & { readonly webhook: Webhook }) {
  const clock = new FakeClock()
  const timers = new TimerWheel(clock, 100)
  const waits = new Waits()
  const logger = recordingLogger()
  const facts = new FactEmitter(logger)
  const errors: IMError[] = []
  const givenUp: Facts['webhookGivenUp'][0][] = []
  facts.on('error', (error) => errors.push(error))
  facts.on('webhookGivenUp', (fact) => givenUp.push(fact))
  const notifier = new WebhookNotifier({
    outbox: memoryOutbox(), isDurable: false, messages: shelf, timers, clock, random: seededRandom(1), logger, facts, counts: new Counters(), waits,
    report: facts.report, limited: (ask) => withTimeLimit({ timers, timeoutMs: 5_000, waits }, ask),
    timeoutMs: 3_000, batchCount: 100, batchMs: 100, retryMs: 500, retryForMs: 60_000, maxCount: 1_000,
    ...over,
  })
  return { clock, timers, waits, logger, errors, givenUp, notifier, shelf }
}

/** A webhook whose calls end when the test says so. */
function heldWebhook() {
  const calls: { readonly events: readonly WebhookEvent[]; readonly subjects: string[]; readonly answer: Deferred; readonly signal: AbortSignal }[] = []
  const webhook: Webhook = {
    notify: (events, signal) => {
      const answer = deferred()
      calls.push({ events, subjects: subjectsOf(events), answer, signal })
      return answer.promise
    },
  }
  return { webhook, calls }
}

/** A webhook that answers at once, as long as it does not have to fail. */
function listener() {
  const told: string[][] = []
  const far = { told, isDown: false, tries: 0 }
  const webhook: Webhook = {
    notify: (events) => {
      far.tries++
      if (far.isDown) throw new Error('down')
      told.push(subjectsOf(events))
    },
  }
  return { webhook, far }
}

describe('batches', () => {
  test('the first event waits for more, for webhookBatchMs and no longer', async () => {
    const { webhook, far } = listener()
    const { notifier, clock } = setUp({ webhook, batchMs: 500 })
    notifier.tell(online('ann'))
    await clock.advance(300)
    notifier.tell(online('ann'))
    expect(far.told).toEqual([])
    await clock.advance(200)
    expect(far.told).toEqual([['ann', 'ann']])
  })

  test('a full one waits for nothing, and what comes during a call goes with the next', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, clock } = setUp({ webhook, batchMs: 60_000, batchCount: 2 })
    for (let n = 0; n < 5; n++) notifier.tell(online('ann'))
    await clock.settle()
    expect(calls.map(({ events }) => events.length)).toEqual([2])
    calls[0]!.answer.resolve()
    await clock.settle()
    expect(calls.map(({ events }) => events.length)).toEqual([2, 2])
    notifier.tell(online('ann'))
    calls[1]!.answer.resolve()
    await clock.settle()
    expect(calls.map(({ events }) => events.length)).toEqual([2, 2, 2])
  })

  test('hold no more messages than webhookBatchCount, whatever the channel has stored at once', async () => {
    const { webhook, far } = listener()
    const { notifier, clock, shelf } = setUp({ webhook, batchCount: 10 })
    const messages = Array.from({ length: 25 }, (_, index) => shelf.put(`m${index}`))
    notifier.announce('2:room', messages.map(({ messageID }) => messageID)).release(messages)
    await clock.settle()
    expect(far.told.map((texts) => texts.length)).toEqual([10, 10, 5])
    expect(far.told.flat()).toEqual(messages.map((_, index) => `m${index}`))
  })

  test('of different users overlap, those of one do not', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, clock } = setUp({ webhook, batchMs: 0 })
    for (let n = 0; n < 40; n++) notifier.tell(online(`user ${n}`))
    await clock.settle()
    expect(calls.length).toBe(8)
    notifier.tell(online('user 0'))
    await clock.settle()
    expect(calls.length).toBe(8)
  })
})

describe('announced messages', () => {
  test('are told once they are let go, and hold back what comes later in their channel, but no other channel', async () => {
    const { webhook, far } = listener()
    const { notifier, clock, shelf } = setUp({ webhook, batchMs: 0 })
    const announce = (channel: string, text: string) => {
      const message = shelf.put(text)
      const announcement = notifier.announce(channel, [message.messageID])
      return () => announcement.release([message])
    }
    const first = announce('2:a', 'first')
    const second = announce('2:a', 'second')
    // Enough of them for every lane to have one.
    const others = Array.from({ length: 60 }, (_, n) => announce(`2:other ${n}`, `other ${n}`))
    second()
    for (const release of others) release()
    await clock.settle()
    expect(far.told.flat().toSorted()).toEqual(others.map((_, n) => `other ${n}`).toSorted())
    first()
    await clock.settle()
    expect(far.told.flat().slice(-2)).toEqual(['first', 'second'])
  })

  test('that were not stored are dropped without a call, and what stood behind them is told', async () => {
    const { webhook, far } = listener()
    const outbox = memoryOutbox()
    const { notifier, clock, shelf } = setUp({ webhook, batchMs: 0, outbox })
    const refused = notifier.announce('2:a', ['404'])
    const failed = notifier.announce('2:a', ['405'])
    const message = shelf.put('stored')
    notifier.announce('2:a', [message.messageID]).release([message])
    await clock.settle()
    expect(far.told).toEqual([])
    refused.drop()
    await clock.settle()
    expect(far.told).toEqual([])
    failed.release([])
    await clock.settle()
    expect(far.told).toEqual([['stored']])
    expect(outbox.count()).toBe(0)
  })

  test('of an outbox that shows entries before it says that they are there are not told before they are let go', async () => {
    const { webhook, far } = listener()
    const inner = memoryOutbox()
    const adds: Deferred[] = []
    const outbox: Outbox = {
      add: async (lane, entries) => {
        const ids = inner.add(lane, entries)
        const added = deferred()
        adds.push(added)
        await added.promise
        return ids
      },
      list: async (lane, query) => inner.list(lane, query),
      remove: async (lane, ids) => inner.remove(lane, ids),
      count: () => inner.count(),
    }
    const { notifier, clock, shelf } = setUp({ webhook, batchMs: 0, outbox })
    const late = shelf.put('late')
    shelf.messages.delete(late.messageID) // not stored yet
    const announcement = notifier.announce('2:room', [late.messageID])
    notifier.tell({ event: 'msg.notify', messages: [shelf.put('behind it')] }) // of the same room
    adds[1]!.resolve() // the later one first
    await clock.settle()
    expect(far.told).toEqual([])
    adds[0]!.resolve()
    await clock.settle()
    shelf.messages.set(late.messageID, late)
    announcement.release([late])
    await clock.settle()
    expect(far.told.flat()).toEqual(['late', 'behind it'])
    expect(inner.count()).toBe(0)
  })

  test('are told by a later life when this one ends before it knows whether they are stored', async () => {
    const outbox = memoryOutbox()
    const shelf = new Shelf()
    const before = setUp({ webhook: { notify: () => undefined }, outbox, shelf, isDurable: true })
    const stored = shelf.put('stored')
    before.notifier.announce('2:a', [stored.messageID])
    before.notifier.announce('2:b', ['never stored'])
    before.notifier.quiesce()
    await before.notifier.close()
    const { webhook, far } = listener()
    const after = setUp({ webhook, outbox, shelf, isDurable: true })
    await after.notifier.start()
    await after.clock.settle()
    expect(far.told).toEqual([['stored']])
    expect(outbox.count()).toBe(0)
  })

  test('in whatever order they are let go, each channel is told in order, everything once, nothing of what was dropped', async () => {
    const script = fc.array(fc.record({ channel: fc.nat(5), isStored: fc.boolean(), rank: fc.nat(1_000) }), { maxLength: 60 })
    await fc.assert(
      fc.asyncProperty(script, fc.integer({ min: 1, max: 7 }), async (steps, batchCount) => {
        const { webhook, far } = listener()
        const outbox = memoryOutbox()
        const { notifier, clock, shelf } = setUp({ webhook, batchMs: 0, batchCount, outbox })
        const open = steps.map(({ channel, isStored, rank }, place) => {
          const message = shelf.put(`${channel}/${place}`)
          if (!isStored) shelf.messages.delete(message.messageID)
          return { ...notifier.announce(`2:${channel}`, [message.messageID]), message, isStored, rank }
        })
        for (const { release, drop, message, isStored, rank } of open.toSorted((a, b) => a.rank - b.rank)) {
          if (isStored) release([message])
          else drop()
          if (rank % 3 === 0) await clock.settle()
        }
        await clock.settle()
        for (let channel = 0; channel <= 5; channel++) {
          const told = far.told.flat().filter((text) => text.startsWith(`${channel}/`))
          expect(told).toEqual(steps.flatMap((step, place) => (step.channel === channel && step.isStored ? [`${channel}/${place}`] : [])))
        }
        expect(outbox.count()).toBe(0)
      }),
      { ...CASES, numRuns: 60 },
    )
  })
})

describe('a call that fails', () => {
  test.each<[manner: string, fail: () => void | Promise<void>]>([
    ['rejects', () => Promise.reject(new Error('down'))],
    ['throws', () => { throw new Error('down') }],
  ])('(%s) is made again with the same batch until it succeeds; the failure and the end of it are told once each', async (_manner, fail) => {
    const seen: (readonly WebhookEvent[])[] = []
    const { notifier, errors, logger, givenUp, clock } = setUp({
      webhook: {
        notify: (events) => {
          seen.push(events)
          if (seen.length < 4) return fail()
        },
      },
      batchMs: 0,
    })
    notifier.tell(online('ann'))
    await clock.settle()
    notifier.tell(online('ann')) // not part of the batch that is repeated
    await clock.advance(10_000)
    expect(seen.map((events) => events.length)).toEqual([1, 1, 1, 1, 1])
    expect(new Set(seen.slice(0, 4)).size).toBe(1)
    expect(errors.map(({ code }) => code)).toEqual(['IM_WEBHOOK_FAILED'])
    expect(givenUp).toEqual([])
    expect(logger.lines.filter(({ level }) => level === 'info').map(({ message }) => message)).toEqual(['the webhook answers again'])
  })

  test('is repeated after pauses that double up to a minute, half of each by chance', async () => {
    const triedAtMs: number[] = []
    const made = setUp({ webhook: { notify: () => { triedAtMs.push(made.clock.monotonicMs()); throw new Error('down') } }, batchMs: 0, retryForMs: 3_600_000 })
    made.notifier.tell(online('ann'))
    await made.clock.advance(600_000)
    const pauses = triedAtMs.slice(1).map((atMs, index) => atMs - triedAtMs[index]!)
    pauses.forEach((pauseMs, index) => {
      const fullMs = Math.min(60_000, 500 * 2 ** index)
      expect(pauseMs).toBeGreaterThanOrEqual(fullMs / 2)
      expect(pauseMs).toBeLessThanOrEqual(fullMs + 100) // and a tick of the wheel
    })
    expect(pauses.length).toBeGreaterThan(12)
  })

  test('holds back its own lane only', async () => {
    const told: string[] = []
    const { notifier, clock } = setUp({
      batchMs: 0,
      webhook: {
        notify: (events) => {
          if (subjectsOf(events).includes('user 0')) throw new Error('not this one')
          told.push(...subjectsOf(events))
        },
      },
    })
    notifier.tell(online('user 0'))
    await clock.settle()
    for (let n = 1; n < 60; n++) notifier.tell(online(`user ${n}`))
    await clock.settle()
    expect(told.length).toBeGreaterThan(40)
    expect(told.length).toBeLessThan(59)
  })

  test('because it hangs is aborted after the time-out and made again', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, clock, errors, timers } = setUp({ webhook, batchMs: 0 })
    notifier.tell(online('ann'))
    await clock.advance(2_900)
    expect(calls.map(({ signal }) => signal.aborted)).toEqual([false])
    await clock.advance(1_000)
    expect(calls.map(({ signal }) => signal.aborted)).toEqual([true, false])
    expect(calls[1]!.events).toBe(calls[0]!.events)
    calls[0]!.answer.reject(new Error('late')) // nobody is interested any more
    calls[1]!.answer.resolve()
    await notifier.idle()
    expect(errors.map(({ code }) => code)).toEqual(['IM_WEBHOOK_FAILED'])
    expect(timers.count).toBe(0)
  })

  test('for longer than webhookRetryForMs is given up with a fact and one error per batch, and the next batch is tried', async () => {
    const { webhook, far } = listener()
    const outbox = memoryOutbox()
    const { notifier, clock, errors, givenUp } = setUp({ webhook, batchMs: 0, batchCount: 1, retryForMs: 5_000, outbox })
    far.isDown = true
    notifier.tell(online('ann'))
    notifier.tell(online('ann'))
    await clock.advance(4_900)
    expect(givenUp).toEqual([])
    await clock.advance(200)
    expect(givenUp).toMatchObject([{ events: [online('ann')], error: { code: 'IM_WEBHOOK_FAILED' } }])
    expect(givenUp[0]!.tryCount).toBe(far.tries - 1)
    await clock.advance(5_200)
    expect(givenUp.length).toBe(2)
    expect(errors.map(({ code }) => code)).toEqual(['IM_WEBHOOK_FAILED', 'IM_WEBHOOK_FAILED', 'IM_WEBHOOK_FAILED'])
    expect(outbox.count()).toBe(0)
  })

  test('with webhookRetryForMs 0 is not made again', async () => {
    const { webhook, far } = listener()
    const { notifier, clock, errors, givenUp } = setUp({ webhook, batchMs: 0, retryForMs: 0 })
    far.isDown = true
    notifier.tell(online('ann'))
    await clock.advance(60_000)
    expect([far.tries, givenUp.length, errors.length]).toEqual([1, 1, 1])
  })
})

describe('storage that fails', () => {
  test('while a batch is read is asked again, and nothing is passed over', async () => {
    const { webhook, far } = listener()
    const shelf = new Shelf()
    let failures = 3
    const messages = {
      get: (ids: readonly string[]) => {
        if (failures-- > 0) throw new IMError('IM_STORE_UNAVAILABLE')
        return shelf.get(ids)
      },
    }
    const { notifier, clock, errors } = setUp({ webhook, batchMs: 0, messages })
    notifier.tell({ event: 'msg.notify', messages: [shelf.put('one')] })
    notifier.tell({ event: 'msg.notify', messages: [shelf.put('two')] })
    await clock.advance(10_000)
    expect(far.told).toEqual([['one', 'two']])
    expect(errors.map(({ code }) => code)).toEqual(['IM_STORE_UNAVAILABLE'])
  })

  test('when told entries are to be removed is asked again, and they are not told twice', async () => {
    const { webhook, far } = listener()
    const inner = memoryOutbox()
    let failures = 3
    const outbox: Outbox = {
      ...inner,
      add: (lane, entries) => inner.add(lane, entries),
      list: (lane, query) => inner.list(lane, query),
      count: () => inner.count(),
      remove: (lane, ids) => {
        if (failures-- > 0) throw new Error('disk full')
        return inner.remove(lane, ids)
      },
    }
    const { notifier, clock } = setUp({ webhook, batchMs: 0, outbox })
    notifier.tell(online('ann'))
    await clock.advance(10_000)
    expect(far.told).toEqual([['ann']])
    expect(inner.count()).toBe(0)
  })

  test('when something is to be added gives it up: told once as an error, each time as a fact', async () => {
    const { webhook, far } = listener()
    const outbox: Outbox = { ...memoryOutbox(), add: () => Promise.reject(new Error('disk full')), list: () => [], remove: () => undefined, count: () => 0 }
    const { notifier, clock, errors, givenUp } = setUp({ webhook, batchMs: 0, outbox })
    notifier.tell(online('ann'))
    notifier.tell(online('bob'))
    await clock.settle()
    expect(far.told).toEqual([])
    expect(givenUp.map(({ events }) => subjectsOf(events))).toEqual([['ann'], ['bob']])
    expect(errors.map(({ code }) => code)).toEqual(['IM_STORE_UNAVAILABLE'])
  })

  test.each<[what: string, isShown: boolean]>([
    ['before anything could be added, does not keep what an earlier life has left from being told', false],
    ['although it is there, is told with the rest', true],
  ])('an entry that could not be added, %s', async (_what, isShown) => {
    const inner = memoryOutbox()
    const shelf = new Shelf()
    const earlier = setUp({ webhook: { notify: () => undefined }, outbox: inner, shelf, isDurable: true })
    earlier.notifier.announce('2:room', [shelf.put('left').messageID])
    earlier.notifier.quiesce()
    await earlier.notifier.close()
    const { webhook, far } = listener()
    let listCount = 0
    const failing: Outbox = {
      add: async (lane, entries) => {
        if (isShown) void inner.add(lane, entries)
        throw new Error('disk full')
      },
      // A lane that reads without end would let nothing else happen.
      list: (lane, query) => (++listCount > 100 ? new Promise(() => undefined) : inner.list(lane, query)),
      remove: (lane, ids) => inner.remove(lane, ids),
      count: () => inner.count(),
    }
    const { notifier, clock } = setUp({ webhook, batchMs: 0, outbox: failing, shelf, isDurable: true })
    const stored = shelf.put('stored')
    notifier.announce('2:room', [stored.messageID]).release([stored])
    await notifier.start()
    await clock.settle()
    expect(far.told.flat()).toEqual(isShown ? ['left', 'stored'] : ['left'])
    expect(inner.count()).toBe(0)
    expect(listCount).toBeLessThan(50)
  })

  test('an entry that cannot be read is reported and passed over', async () => {
    const outbox = memoryOutbox()
    const damaged = ['["?"]', 'not JSON', '["notify",7]', '["offline","2:room","1",[],null]', '["offline","2:room","1",[],{"payload":7}]']
    for (let lane = 0; lane < 8; lane++) void outbox.add(lane, damaged.map((text) => Buffer.from(text)))
    const { webhook, far } = listener()
    const { notifier, clock, errors } = setUp({ webhook, batchMs: 0, outbox })
    await notifier.start()
    notifier.tell(online('ann'))
    await clock.settle()
    expect(far.told).toEqual([['ann']])
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['IM_STORE_CORRUPT']))
    expect(outbox.count()).toBe(0)
  })
})

describe('at the bound', () => {
  test('the newest are given up, each as a fact, the log hears of it once; and there is room again when the older ones are told', async () => {
    const { webhook, far } = listener()
    const { notifier, clock, errors, givenUp, shelf } = setUp({ webhook, batchMs: 0, maxCount: 2 })
    far.isDown = true
    for (const uid of ['a', 'b', 'c', 'd']) notifier.tell(online(uid))
    const message = shelf.put('stored all the same')
    notifier.announce('2:room', [message.messageID]).release([message])
    notifier.announce('2:room', ['not stored']).drop()
    expect(givenUp.map(({ events }) => subjectsOf(events))).toEqual([['c'], ['d'], ['stored all the same']])
    expect(givenUp.every(({ error, tryCount }) => error.code === 'IM_QUEUE_FULL' && tryCount === 0)).toBe(true)
    expect(errors.filter(({ code }) => code === 'IM_QUEUE_FULL').length).toBe(1)
    far.isDown = false
    await clock.advance(2_000)
    notifier.tell(online('e'))
    await clock.settle()
    expect(far.told.flat().toSorted()).toEqual(['a', 'b', 'e'])
  })

  test('entries of an earlier life count', async () => {
    const outbox = memoryOutbox()
    const { webhook, far } = listener()
    far.isDown = true
    const before = setUp({ webhook, outbox, isDurable: true })
    before.notifier.tell(online('a'))
    const after = setUp({ webhook, outbox, isDurable: true, maxCount: 1 })
    await after.notifier.start()
    after.notifier.tell(online('b'))
    expect(after.givenUp.map(({ events }) => subjectsOf(events))).toEqual([['b']])
  })
})

describe('offline receivers', () => {
  test('are told with the message as the store has it, or with the message itself when no store has it', async () => {
    const { webhook, far } = listener()
    const { notifier, clock, shelf } = setUp({ webhook, batchMs: 0 })
    const stored = shelf.put('stored')
    notifier.tell({ event: 'msg.offline', message: stored, uids: ['bob'] })
    notifier.tell({ event: 'msg.offline', message: sampleMessage(99, { noPersist: true, payload: Buffer.from('passing by') }), uids: ['cat', 'dan'] })
    await clock.settle()
    expect(far.told).toEqual([['stored for bob', 'passing by for cat,dan']])
  })
})

test('only what the webhook wants is written down and told, also of what an earlier life has left', async () => {
  const outbox = memoryOutbox()
  const shelf = new Shelf()
  const before = setUp({ webhook: { notify: () => undefined }, outbox, shelf, isDurable: true })
  before.notifier.tell(online('ann'))
  before.notifier.tell({ event: 'msg.notify', messages: [shelf.put('hello')] })
  const { webhook, far } = listener()
  const after = setUp({ webhook: { ...webhook, events: ['msg.notify'] }, outbox, shelf, isDurable: true })
  await after.notifier.start()
  after.notifier.tell(online('bob'))
  expect(outbox.count()).toBe(2)
  await after.clock.settle()
  expect(far.told).toEqual([['hello']])
  expect(outbox.count()).toBe(0)
})

describe('at the end', () => {
  test('with an outbox that lasts, the calls under way end, no other is begun, and the next life tells the rest', async () => {
    const outbox = memoryOutbox()
    const { webhook, calls } = heldWebhook()
    const { notifier, clock, givenUp } = setUp({ webhook, batchMs: 0, batchCount: 1, outbox, isDurable: true })
    notifier.tell(online('ann'))
    notifier.tell(online('ann'))
    await clock.settle()
    notifier.quiesce()
    let isIdle = false
    void notifier.idle().then(() => (isIdle = true))
    await clock.settle()
    expect(isIdle).toBe(false)
    calls[0]!.answer.resolve()
    await clock.settle()
    expect(isIdle).toBe(true)
    await notifier.close()
    expect([calls.length, outbox.count(), givenUp.length]).toEqual([1, 1, 0])
  })

  test('with an outbox that does not last, nothing waits for more to come, and what fails is tried until the end', async () => {
    const { webhook, far } = listener()
    const { notifier, clock } = setUp({ webhook, batchMs: 60_000 })
    notifier.tell(online('ann'))
    await clock.settle()
    far.isDown = true
    notifier.quiesce()
    await clock.settle()
    expect(far.tries).toBe(1)
    far.isDown = false
    await clock.advance(600)
    await notifier.idle()
    expect(far.told).toEqual([['ann']])
  })

  test('with an outbox that does not last, what is left is given up with the number of its tries', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, clock, waits, givenUp } = setUp({ webhook, batchMs: 0, batchCount: 1 })
    notifier.tell(online('ann'))
    notifier.tell(online('ann'))
    await clock.settle()
    notifier.quiesce()
    waits.abort(new IMError('IM_ABORTED'))
    notifier.quiesce()
    await notifier.idle()
    expect(calls[0]!.signal.aborted).toBe(true)
    await notifier.close()
    expect(givenUp.map(({ events, tryCount }) => [...subjectsOf(events), tryCount])).toEqual([['ann', 1], ['ann', 0]])
  })

  test.each([true, false])('what is read when the end comes is not told after it (isDurable %s)', async (isDurable) => {
    const { webhook, far } = listener()
    const shelf = new Shelf()
    const reading = deferred()
    let isSlow = true
    const get = async (ids: readonly string[]): Promise<(Message | undefined)[]> => {
      if (isSlow) await reading.promise
      return shelf.get(ids)
    }
    const outbox = memoryOutbox()
    const { notifier, clock, givenUp } = setUp({ webhook, batchMs: 0, outbox, isDurable, messages: { get } })
    notifier.tell({ event: 'msg.notify', messages: [shelf.put('late')] })
    await clock.settle()
    isSlow = false
    notifier.quiesce()
    await notifier.close()
    reading.resolve()
    await clock.settle()
    expect(far.told).toEqual([])
    expect(givenUp.map(({ events }) => subjectsOf(events))).toEqual(isDurable ? [] : [['late']])
    expect(outbox.count()).toBe(isDurable ? 1 : 0)
  })

  test('with an outbox that does not last, what is let go later is given up', async () => {
    const { webhook, far } = listener()
    const { notifier, clock, givenUp, shelf } = setUp({ webhook, batchMs: 0 })
    const late = shelf.put('late')
    const announcement = notifier.announce('2:room', [late.messageID])
    notifier.quiesce()
    await notifier.close()
    announcement.release([late])
    await clock.settle()
    expect(far.told).toEqual([])
    expect(givenUp.map(({ events }) => subjectsOf(events))).toEqual([['late']])
  })

  test('what is dropped when nobody waits any more is left alone, and its storage’s failure finds someone', async () => {
    const inner = memoryOutbox()
    let removeCount = 0
    const outbox: Outbox = {
      add: (lane, entries) => inner.add(lane, entries),
      list: (lane, query) => inner.list(lane, query),
      remove: () => {
        removeCount++
        return Promise.reject(new Error('it is closed'))
      },
      count: () => inner.count(),
    }
    const { notifier, clock, waits } = setUp({ webhook: { notify: () => undefined }, outbox, isDurable: true })
    const announcement = notifier.announce('2:room', ['1'])
    waits.abort(new IMError('IM_ABORTED'))
    await notifier.close()
    announcement.drop()
    await clock.settle()
    expect(removeCount).toBe(0)
  })

  test('a call that ends after everything has been given up changes nothing', async () => {
    const { webhook, calls } = heldWebhook()
    const { notifier, clock, givenUp, errors } = setUp({ webhook, batchMs: 0 })
    notifier.tell(online('ann'))
    await clock.settle()
    await notifier.close()
    expect(givenUp.length).toBe(1)
    calls[0]!.answer.resolve()
    await clock.settle()
    notifier.tell(online('too late'))
    expect([givenUp.length, errors.length, calls.length]).toEqual([2, 0, 1])
    expect(givenUp[1]).toMatchObject({ events: [online('too late')], error: { code: 'IM_NOT_RUNNING' } })
  })
})

test('a webhook without notify costs nothing: nothing is written down', async () => {
  const outbox = memoryOutbox()
  const add = vi.spyOn(outbox, 'add')
  const { notifier, clock } = setUp({ webhook: {}, outbox })
  await notifier.start()
  notifier.tell(online('a'))
  await notifier.idle()
  expect(add).not.toHaveBeenCalled()
  expect(clock.pendingTimerCount).toBe(0)
})
