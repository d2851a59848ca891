import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { ChannelPool } from '../../src/events/channel-pool.ts'
import { PusherPool } from '../../src/events/pusher-pool.ts'
import { UserPool } from '../../src/events/user-pool.ts'
import { deferred } from '../support.ts'
import { CASES, settled, type Deferred } from './workload.ts'

/**
 * Five things that the event pools of the second reference server get wrong, and that these pools must not: every test
 * ends the handlers of random events in random order.
 */
const ROOM = { maxEventsPerKey: 1_000, maxBytesPerKey: 1_000_000, maxEvents: 10_000, maxBytes: 10_000_000, maxBatchCount: 7 }

interface PoolEvent {
  readonly key: string
  readonly number: number
  readonly kind: string
  /** its handler returns a promise that the test settles */
  readonly waits: boolean
  /** its handler throws, or rejects when it waits */
  readonly fails: boolean
}

const arrivals = fc.array(
  fc.record({
    key: fc.constantFrom('ann', 'bob', 'cleo'),
    kind: fc.constantFrom('send', 'close', 'write'),
    waits: fc.boolean(),
    fails: fc.boolean(),
    drainsAfter: fc.boolean(),
    settlesAfter: fc.boolean(),
  }),
  { maxLength: 40 },
)

type Arrival = { readonly key: string; readonly kind: string; readonly waits: boolean; readonly fails: boolean; readonly drainsAfter: boolean; readonly settlesAfter: boolean }

type Run = (event: PoolEvent) => void | Promise<void>
interface AnyPool {
  readonly depth: number
  submit(key: string, event: PoolEvent): boolean
  drain(): void
  idle(): Promise<void>
}

const pools: readonly (readonly [string, (run: Run, schedule: () => void, limits?: Partial<typeof ROOM>) => AnyPool])[] = [
  [
    'the user pool',
    (run, schedule, limits) => {
      const pool = new UserPool<PoolEvent>({ ...ROOM, ...limits, run, schedule, report: () => undefined, bytesOf: () => 1 })
      return { get depth() { return pool.depth }, submit: (key, event) => pool.submitSend(key, event), drain: () => pool.drain(), idle: () => pool.idle() }
    },
  ],
  [
    'the channel pool',
    (run, schedule, limits) => {
      const runBatch = async (_key: string, batch: readonly PoolEvent[]): Promise<void> => {
        for (const event of batch) await run(event)
      }
      return new ChannelPool<PoolEvent>({ ...ROOM, ...limits, run: runBatch, schedule, report: () => undefined, bytesOf: () => 1 })
    },
  ],
  [
    'the pusher pool',
    (run, schedule, limits) => {
      const pool = new PusherPool<PoolEvent>({ ...ROOM, ...limits, run, schedule, report: () => undefined, bytesOf: () => 1 })
      return { get depth() { return pool.depth }, submit: (key, event) => (pool.submit(key, event), true), drain: () => pool.drain(), idle: () => pool.idle() }
    },
  ],
]

/** Feed one pool with everything that arrives, ending handlers as `order` points at them; and what happened. */
async function drive(make: (typeof pools)[number][1], list: readonly Arrival[], order: readonly number[], failing: boolean) {
  const pending: Deferred[] = []
  const begun: PoolEvent[] = []
  const ended: PoolEvent[] = []
  const underWay = new Map<string, number>()
  let mostAtOnce = 0
  let scheduled = false
  const run: Run = (event) => {
    begun.push(event)
    underWay.set(event.key, (underWay.get(event.key) ?? 0) + 1)
    mostAtOnce = Math.max(mostAtOnce, underWay.get(event.key)!)
    const end = (): void => {
      ended.push(event)
      underWay.set(event.key, underWay.get(event.key)! - 1)
      if (failing && event.fails) throw new Error(`event ${event.number} of ${event.key}`)
    }
    if (!event.waits) return end()
    const answer = deferred()
    pending.push(answer)
    return answer.promise.then(end)
  }
  const pool = make(run, () => (scheduled = true))
  const drain = (): void => {
    if (!scheduled) return
    scheduled = false
    pool.drain()
  }
  let turn = 0
  const settleOne = async (): Promise<void> => {
    const which = order.length === 0 ? 0 : order[turn++ % order.length]! % pending.length
    pending.splice(which, 1)[0]?.resolve()
    await settled()
  }
  const counts = new Map<string, number>()
  const submitted: PoolEvent[] = []
  for (const { key, kind, waits, fails, drainsAfter, settlesAfter } of list) {
    const number = counts.get(key) ?? 0
    counts.set(key, number + 1)
    const event = { key, number, kind, waits, fails }
    if (pool.submit(key, event)) submitted.push(event)
    if (drainsAfter) drain()
    if (settlesAfter && pending.length > 0) await settleOne()
  }
  for (let idleTurns = 0; idleTurns < 2; ) {
    idleTurns = scheduled || pending.length > 0 ? 0 : idleTurns + 1
    drain()
    if (pending.length > 0) await settleOne()
    else await settled()
  }
  return { pool, submitted, begun, ended, mostAtOnce }
}

const ofKey = (events: readonly PoolEvent[], key: string): string[] =>
  events.filter((event) => event.key === key).map((event) => `${event.number} ${event.kind}`)

const orders = fc.array(fc.nat(50), { maxLength: 30 })

describe.each(pools)('order: a batch is not sorted by kind of event (%s)', (_name, make) => {
  test('events of one key are handled in the order of their arrival, whatever their kinds', async () => {
    await fc.assert(
      fc.asyncProperty(arrivals, orders, async (list, order) => {
        const { submitted, begun } = await drive(make, list, order, false)
        for (const key of ['ann', 'bob', 'cleo']) expect(ofKey(begun, key)).toEqual(ofKey(submitted, key))
      }),
      CASES,
    )
  })
})

describe.each(pools)('double drain: two batches of one key never run together (%s)', (_name, make) => {
  test('an event of a key begins only when the one before it has ended', async () => {
    await fc.assert(
      fc.asyncProperty(arrivals, orders, async (list, order) => {
        const { mostAtOnce } = await drive(make, list, order, false)
        expect(mostAtOnce).toBeLessThanOrEqual(1)
      }),
      CASES,
    )
  })

  test('also when drain is called again and again while a batch hangs', async () => {
    const answer = deferred()
    const begun: number[] = []
    const pool = make((event) => (begun.push(event.number), answer.promise), () => undefined)
    for (let number = 0; number < 5; number++) {
      pool.submit('ann', { key: 'ann', number, kind: 'send', waits: true, fails: false })
      pool.drain()
      pool.drain()
    }
    await settled()
    expect(begun).toEqual([0])
    answer.resolve()
  })
})

describe.each(pools)('lost batch: what was taken is handled, however busy the pool is (%s)', (_name, make) => {
  test('every accepted event is handled exactly once and the pool comes to rest', async () => {
    await fc.assert(
      fc.asyncProperty(arrivals, orders, async (list, order) => {
        const { pool, submitted, ended } = await drive(make, list, order, false)
        const names = (events: readonly PoolEvent[]): string[] => events.map((event) => `${event.key} ${event.number}`).sort()
        expect(names(ended)).toEqual(names(submitted))
        expect(pool.depth).toBe(0)
        await pool.idle()
      }),
      CASES,
    )
  })
})

describe.each(pools.filter(([name]) => name !== 'the channel pool'))('one bad event: the rest of its batch is handled (%s)', (_name, make) => {
  test('every accepted event begins, although any of them may throw or reject', async () => {
    await fc.assert(
      fc.asyncProperty(arrivals, orders, async (list, order) => {
        const { pool, submitted, begun } = await drive(make, list, order, true)
        for (const key of ['ann', 'bob', 'cleo']) expect(ofKey(begun, key)).toEqual(ofKey(submitted, key))
        expect(pool.depth).toBe(0)
      }),
      CASES,
    )
  })
})

describe('one bad event: a failing batch stops neither its channel nor others (the channel pool)', () => {
  test('the batches that come later are handled', async () => {
    const handled: string[] = []
    const report = vi.fn()
    const run = (channel: string, batch: readonly string[]): Promise<void> => {
      if (batch.includes('bad')) return Promise.reject(new Error('bad'))
      handled.push(`${channel} ${batch.join()}`)
      return Promise.resolve()
    }
    const pool = new ChannelPool<string>({ ...ROOM, run, report, schedule: () => undefined, bytesOf: () => 1 })
    pool.submit('a', 'bad')
    pool.submit('b', '1')
    pool.drain()
    pool.submit('a', '2')
    await settled()
    pool.drain()
    await settled()
    expect(handled).toEqual(['b 1', 'a 2'])
    expect(report).toHaveBeenCalledTimes(1)
    expect(pool.depth).toBe(0)
  })
})

describe.each(pools.filter(([name]) => name !== 'the pusher pool'))('silent drop: what is not taken is said (%s)', (_name, make) => {
  test('submit answers false exactly for the events that are not handled', async () => {
    const limits = { maxEventsPerKey: 3, maxEvents: 5 }
    await fc.assert(
      fc.asyncProperty(arrivals, orders, async (list, order) => {
        const { submitted, ended } = await drive((run, schedule) => make(run, schedule, limits), list, order, false)
        const names = (events: readonly PoolEvent[]): string[] => events.map((event) => `${event.key} ${event.number}`).sort()
        expect(names(ended)).toEqual(names(submitted))
      }),
      CASES,
    )
  })

  test('an event beyond the bound is refused, one within is not', () => {
    const pool = make(() => deferred().promise, () => undefined, { maxEventsPerKey: 2 })
    const event = { key: 'ann', number: 0, kind: 'send', waits: true, fails: false }
    expect([pool.submit('ann', event), pool.submit('ann', event), pool.submit('ann', event)]).toEqual([true, true, false])
  })
})
