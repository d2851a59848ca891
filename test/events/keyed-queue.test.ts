import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { KeyedQueue, type KeyedQueueOptions } from '../../src/events/keyed-queue.ts'
import { deferred } from '../support.ts'
import { bounds, CASES, commands, gathers, manners, settled, type Command, type Deferred, type Manner, type QueuedEvent } from './workload.ts'

type Bounds = Pick<KeyedQueueOptions<unknown>, 'maxEventsPerKey' | 'maxBytesPerKey' | 'maxEvents' | 'maxBytes' | 'maxBatchCount'>

/** Drives a queue and holds it against a plain count of what it has taken and what has been handled. */
class Bench {
  readonly queue: KeyedQueue<QueuedEvent>
  readonly accepted = new Map<string, number[]>()
  readonly handled = new Map<string, number[]>()
  readonly defects: unknown[] = []
  readonly pending: { readonly key: string; readonly batch: readonly QueuedEvent[]; readonly answer: Deferred; readonly manner: Manner }[] = []
  readonly gathering: { readonly key: string; readonly over: Deferred }[] = []
  readonly running = new Set<string>()
  /** keys are ready and nobody has drained since */
  scheduled = false
  rejectedCount = 0
  failedCount = 0
  #calls = 0
  readonly #load = new Map<string, { count: number; bytes: number }>()
  readonly #bounds: Bounds
  readonly #manners: readonly Manner[]
  readonly #gathers: readonly boolean[]
  #asks = 0

  /** @param gathers  of the times that a key is ready, in turn: does it gather? */
  constructor(bounds: Bounds, manners: readonly Manner[], gathers: readonly boolean[] = [false]) {
    this.#bounds = bounds
    this.#manners = manners
    this.#gathers = gathers
    this.queue = new KeyedQueue<QueuedEvent>({
      ...bounds,
      gather: (key, waiting) => this.#gather(key, waiting),
      run: (key, batch) => this.#run(key, batch),
      report: (defect) => void this.defects.push(defect),
      schedule: () => void (this.scheduled = true),
      bytesOf: (event) => event.bytes,
    })
  }

  async apply(command: Command): Promise<void> {
    if (command.kind === 'submit') this.#submit(command.key, command.bytes)
    else if (command.kind === 'drain') this.drain()
    else await this.settle(command.which)
    this.#checkBounds()
  }

  drain(): void {
    if (!this.scheduled) return // nobody was asked to: then nothing is ready
    this.scheduled = false
    this.queue.drain()
  }

  async settle(which: number): Promise<void> {
    if (this.gathering.length > 0 && (which % 2 === 1 || this.pending.length === 0)) {
      const [letGo] = this.gathering.splice(which % this.gathering.length, 1)
      letGo!.over.resolve()
      return settled()
    }
    if (this.pending.length === 0) return
    const [call] = this.pending.splice(which % this.pending.length, 1)
    this.#end(call!.key, call!.batch)
    if (call!.manner === 'rejects later') this.#fail(call!.answer)
    else call!.answer.resolve()
    await settled()
  }

  async finish(): Promise<void> {
    while (this.scheduled || this.pending.length > 0 || this.gathering.length > 0) {
      this.drain()
      await this.settle(0)
    }
  }

  #submit(key: string, bytes: number): void {
    const numbers = this.accepted.get(key) ?? []
    const isFull = this.#wouldExceed(key, bytes)
    expect(this.queue.isFull(key, bytes)).toBe(isFull)
    const taken = this.queue.submit(key, { key, number: numbers.length, bytes })
    expect(taken).toBe(!isFull)
    if (!taken) {
      this.rejectedCount++
      return
    }
    this.accepted.set(key, [...numbers, numbers.length])
    const load = this.#loadOf(key)
    load.count++
    load.bytes += bytes
  }

  #wouldExceed(key: string, bytes: number): boolean {
    const own = this.#loadOf(key)
    const all = this.#total()
    if (all.count + 1 > this.#bounds.maxEvents || all.bytes + bytes > this.#bounds.maxBytes) return true
    // One event alone may be larger than its key's bound: otherwise it could never be sent at all.
    return own.count > 0 && (own.count + 1 > this.#bounds.maxEventsPerKey || own.bytes + bytes > this.#bounds.maxBytesPerKey)
  }

  #gather(key: string, waiting: readonly QueuedEvent[]): Promise<void> | undefined {
    expect(this.running.has(key), `${key} gathers while a batch of it runs`).toBe(false)
    expect(this.gathering.map((each) => each.key), `${key} gathers twice`).not.toContain(key)
    expect(waiting[0]?.key).toBe(key)
    if (!this.#gathers[this.#asks++ % this.#gathers.length]!) return undefined
    const over = deferred()
    this.gathering.push({ key, over })
    return over.promise
  }

  #run(key: string, batch: readonly QueuedEvent[]): void | Promise<void> {
    expect(this.gathering.map((each) => each.key), `${key} runs while it gathers`).not.toContain(key)
    expect(this.running.has(key), `two batches of ${key} at once`).toBe(false)
    expect(batch.length).toBeGreaterThan(0)
    expect(batch.length).toBeLessThanOrEqual(this.#bounds.maxBatchCount)
    expect(batch.every((event) => event.key === key)).toBe(true)
    this.running.add(key)
    const manner = this.#manners[this.#calls++ % this.#manners.length]!
    if (manner === 'sync' || manner === 'throws') {
      this.#end(key, batch)
      if (manner === 'sync') return
      this.failedCount++
      throw new Error('a defect')
    }
    const answer = deferred()
    this.pending.push({ key, batch, answer, manner })
    return answer.promise
  }

  #end(key: string, batch: readonly QueuedEvent[]): void {
    this.running.delete(key)
    this.handled.set(key, [...(this.handled.get(key) ?? []), ...batch.map((event) => event.number)])
    const load = this.#loadOf(key)
    load.count -= batch.length
    load.bytes -= batch.reduce((sum, event) => sum + event.bytes, 0)
  }

  #fail(answer: Deferred): void {
    this.failedCount++
    answer.reject(new Error('a defect'))
  }

  #checkBounds(): void {
    const all = this.#total()
    expect(this.queue.depth).toBe(all.count)
    expect(all.count).toBeLessThanOrEqual(this.#bounds.maxEvents)
    expect(all.bytes).toBeLessThanOrEqual(this.#bounds.maxBytes)
    for (const { count, bytes } of this.#load.values()) {
      expect(count).toBeLessThanOrEqual(this.#bounds.maxEventsPerKey)
      if (count > 1) expect(bytes).toBeLessThanOrEqual(this.#bounds.maxBytesPerKey)
    }
  }

  #loadOf(key: string): { count: number; bytes: number } {
    let load = this.#load.get(key)
    if (load === undefined) this.#load.set(key, (load = { count: 0, bytes: 0 }))
    return load
  }

  #total(): { count: number; bytes: number } {
    let count = 0
    let bytes = 0
    for (const load of this.#load.values()) {
      count += load.count
      bytes += load.bytes
    }
    return { count, bytes }
  }
}

describe('whatever comes in whatever order', () => {
  // P7
  test('every accepted event is handled once and in order, never two batches of a key at once, and no bound is exceeded', async () => {
    await fc.assert(
      fc.asyncProperty(bounds, manners, gathers, commands, async (limits, answers, gathering, list) => {
        const bench = new Bench(limits, answers, gathering)
        for (const command of list) await bench.apply(command)
        await bench.finish()
        await bench.queue.idle()
        expect(Object.fromEntries(bench.handled)).toEqual(Object.fromEntries(bench.accepted))
        expect(bench.queue.depth).toBe(0)
        expect(bench.queue.rejectedCount).toBe(bench.rejectedCount)
        expect(bench.defects).toHaveLength(bench.failedCount)
        // No byte is left behind: an event as large as the whole queue fits again.
        expect(bench.queue.isFull('a new key', limits.maxBytes)).toBe(false)
        expect(bench.queue.isFull('ann', limits.maxBytes)).toBe(false)
      }),
      CASES,
    )
  })

  test('idle() resolves when the last event has been handled, and not before', async () => {
    await fc.assert(
      fc.asyncProperty(bounds, manners, gathers, commands, async (limits, answers, gathering, list) => {
        const bench = new Bench(limits, answers, gathering)
        for (const command of list) await bench.apply(command)
        let idle = false
        void bench.queue.idle().then(() => (idle = true))
        await settled()
        expect(idle).toBe(bench.queue.depth === 0)
        await bench.finish()
        await settled()
        expect(idle).toBe(true)
      }),
      { ...CASES, numRuns: 60 },
    )
  })
})

const ROOM: Bounds = { maxEventsPerKey: 100, maxBytesPerKey: 10_000, maxEvents: 1_000, maxBytes: 100_000, maxBatchCount: 100 }

/** A queue whose batches end when the test says so. */
function heldQueue(limits: Partial<Bounds> = {}) {
  const calls: { readonly key: string; readonly batch: readonly string[]; readonly answer: Deferred }[] = []
  const report = vi.fn()
  const schedule = vi.fn()
  const queue = new KeyedQueue<string>({
    ...ROOM,
    ...limits,
    run: (key, batch) => {
      const answer = deferred()
      calls.push({ key, batch: [...batch], answer })
      return answer.promise
    },
    report,
    schedule,
    bytesOf: (event) => event.length,
  })
  const end = async (index: number): Promise<void> => {
    calls[index]!.answer.resolve()
    await settled()
  }
  return { queue, calls, report, schedule, end }
}

test('what comes while a key gathers is in its batch, cut at maxBatchCount', async () => {
  const bench = new Bench({ ...ROOM, maxBatchCount: 3 }, ['resolves later'], [true, false])
  const submit = (): Promise<void> => bench.apply({ kind: 'submit', key: 'ann', bytes: 1 })
  await submit()
  bench.drain()
  for (let count = 0; count < 4; count++) await submit()
  bench.drain()
  expect(bench.pending).toEqual([])
  await bench.settle(0)
  expect(bench.pending.map(({ batch }) => batch.map(({ number }) => number))).toEqual([[0, 1, 2]])
  await bench.settle(0)
  bench.drain()
  expect(bench.pending.map(({ batch }) => batch.map(({ number }) => number))).toEqual([[3, 4]])
})

describe('one key', () => {
  test('what comes while a batch is handled makes up the next one, cut at maxBatchCount', async () => {
    const { queue, calls, end } = heldQueue({ maxBatchCount: 3 })
    queue.submit('a', '1')
    queue.drain()
    for (const event of ['2', '3', '4', '5']) queue.submit('a', event)
    queue.drain()
    expect(calls.map((call) => call.batch)).toEqual([['1']])
    await end(0)
    queue.drain()
    await end(1)
    queue.drain()
    expect(calls.map((call) => call.batch)).toEqual([['1'], ['2', '3', '4'], ['5']])
  })

  test('a hanging batch holds up no other key', async () => {
    const { queue, calls, end } = heldQueue()
    queue.submit('slow', '1')
    queue.drain()
    for (let round = 0; round < 3; round++) {
      queue.submit('fast', String(round))
      queue.drain()
      await end(calls.length - 1)
    }
    expect(calls.filter((call) => call.key === 'fast').map((call) => call.batch[0])).toEqual(['0', '1', '2'])
    expect(queue.depth).toBe(1)
  })

  test('an event counts until its batch has ended, not until it is taken out', async () => {
    const { queue, end } = heldQueue({ maxEventsPerKey: 2 })
    queue.submit('a', '1')
    queue.submit('a', '2')
    queue.drain()
    expect(queue.submit('a', '3')).toBe(false)
    await end(0)
    expect(queue.submit('a', '3')).toBe(true)
  })

  test('one drain is asked for when keys become ready, not one per event or per key', async () => {
    const { queue, schedule, end } = heldQueue()
    queue.submit('a', '1')
    queue.submit('a', '2')
    queue.submit('b', '1')
    expect(schedule).toHaveBeenCalledTimes(1)
    queue.drain()
    queue.submit('a', '3') // waits for the batch that runs
    expect(schedule).toHaveBeenCalledTimes(1)
    await end(0)
    expect(schedule).toHaveBeenCalledTimes(2)
  })

  test('what a batch submits for other keys from inside a drain waits for the next one', () => {
    const order: string[] = []
    const queue: KeyedQueue<string> = new KeyedQueue<string>({
      ...ROOM,
      run: (key) => {
        order.push(key)
        if (key === 'a') queue.submit('b', 'from a')
      },
      report: () => undefined,
      schedule: () => undefined,
      bytesOf: () => 1,
    })
    queue.submit('a', '1')
    queue.drain()
    expect(order).toEqual(['a'])
    queue.drain()
    expect(order).toEqual(['a', 'b'])
  })
})

describe('a run that throws or rejects', () => {
  test.each(['throws', 'rejects'])('%s: it is reported, and neither its key nor the others stop', async (manner) => {
    const report = vi.fn()
    const handled: string[] = []
    const queue = new KeyedQueue<string>({
      ...ROOM,
      run: (key, batch) => {
        if (batch[0] !== 'bad') return void handled.push(`${key}:${batch.join()}`)
        if (manner === 'throws') throw new Error('bad')
        return Promise.reject(new Error('bad'))
      },
      report,
      schedule: () => undefined,
      bytesOf: (event) => event.length,
    })
    queue.submit('a', 'bad')
    queue.submit('b', '1')
    queue.drain()
    await settled()
    expect(handled).toEqual(['b:1'])
    expect(queue.submit('a', '2')).toBe(true)
    queue.drain()
    expect(handled).toEqual(['b:1', 'a:2'])
    expect(report).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ message: 'bad' }))
    await expect(queue.idle()).resolves.toBeUndefined()
  })
})

describe('submitAlways', () => {
  test('takes an event past every bound, in its place behind the others of its key', async () => {
    const { queue, calls, end } = heldQueue({ maxEventsPerKey: 1, maxEvents: 1, maxBytes: 4, maxBytesPerKey: 4 })
    expect(queue.submit('a', 'full')).toBe(true)
    expect(queue.submit('a', '2')).toBe(false)
    queue.submitAlways('a', 'past the bounds')
    expect(queue.depth).toBe(2)
    expect(queue.rejectedCount).toBe(1)
    queue.drain()
    await end(0)
    expect(calls[0]!.batch).toEqual(['full', 'past the bounds'])
    expect(queue.depth).toBe(0)
    expect(queue.submit('a', 'full')).toBe(true)
  })
})

describe('relief', () => {
  test('is told at once while the key is not above half of its bound', () => {
    const { queue } = heldQueue({ maxEventsPerKey: 4 })
    const relieved = vi.fn()
    queue.onceRelieved('nobody', relieved)
    queue.submit('a', '1')
    queue.submit('a', '2')
    queue.onceRelieved('a', relieved)
    expect(relieved).toHaveBeenCalledTimes(2)
  })

  test('is told once, when the key has fallen to half, and not before', async () => {
    const { queue, end } = heldQueue({ maxEventsPerKey: 4, maxBatchCount: 1 })
    for (const event of ['1', '2', '3', '4']) queue.submit('a', event)
    const relieved = vi.fn()
    queue.onceRelieved('a', relieved)
    queue.drain()
    expect(relieved).not.toHaveBeenCalled()
    await end(0) // 3 left
    expect(relieved).not.toHaveBeenCalled()
    queue.drain()
    await end(1) // 2 left
    expect(relieved).toHaveBeenCalledTimes(1)
    queue.drain()
    await end(2)
    queue.drain()
    await end(3)
    expect(relieved).toHaveBeenCalledTimes(1)
  })

  test('waits for the bytes of the key, too', async () => {
    const { queue, end } = heldQueue({ maxBytesPerKey: 8, maxBatchCount: 1 })
    queue.submit('a', 'x')
    queue.submit('a', '1234567')
    const relieved = vi.fn()
    queue.onceRelieved('a', relieved)
    queue.drain()
    await end(0)
    expect(relieved).not.toHaveBeenCalled()
    queue.drain()
    await end(1)
    expect(relieved).toHaveBeenCalledTimes(1)
  })

  test.each([
    ['events', { maxEvents: 4 }],
    ['bytes', { maxBytes: 4 }],
  ])('waits for the queue as a whole, counted in %s', async (_unit, limits) => {
    const { queue, end } = heldQueue(limits)
    for (const key of ['a', 'b', 'c', 'd']) queue.submit(key, '1')
    const relieved = vi.fn()
    queue.onceRelieved('a', relieved)
    queue.drain()
    await end(0)
    expect(relieved).not.toHaveBeenCalled()
    await end(1)
    expect(relieved).toHaveBeenCalledTimes(1)
    await end(2)
    await end(3)
    expect(relieved).toHaveBeenCalledTimes(1)
  })

  test('waits for the whole queue, too, when the key has room first', async () => {
    const { queue, end } = heldQueue({ maxEventsPerKey: 2, maxEvents: 4, maxBatchCount: 1 })
    for (const key of ['a', 'a', 'b', 'b']) queue.submit(key, '1')
    const relieved = vi.fn()
    queue.onceRelieved('a', relieved)
    queue.drain()
    await end(0) // a has room, the queue has not
    expect(relieved).not.toHaveBeenCalled()
    await end(1)
    expect(relieved).toHaveBeenCalledTimes(1)
  })

  test('does not come while the key has filled up again before the whole queue had room', async () => {
    const { queue, end } = heldQueue({ maxEventsPerKey: 2, maxEvents: 4 })
    for (const key of ['b', 'c', 'd']) queue.submit(key, '1')
    queue.submit('a', '1')
    const relieved = vi.fn()
    queue.onceRelieved('a', relieved) // the key has room, the queue has not
    queue.drain()
    await end(3) // the one of a
    queue.submit('a', '2')
    await end(0)
    queue.submit('a', '3')
    await end(1)
    await end(2) // only a's two are left: at its bound
    expect(relieved).not.toHaveBeenCalled()
    queue.drain()
    await end(4)
    expect(relieved).toHaveBeenCalledTimes(1)
  })

  test('a callback that submits again is no trouble, and everyone who waits is told', async () => {
    const { queue, calls, end } = heldQueue({ maxEventsPerKey: 1 })
    queue.submit('a', '1')
    const told: string[] = []
    queue.onceRelieved('a', () => {
      told.push('first')
      queue.submit('a', '2')
    })
    queue.onceRelieved('a', () => told.push('second'))
    queue.drain()
    await end(0)
    expect(told[0]).toBe('first')
    queue.drain()
    await end(1)
    expect(told).toEqual(['first', 'second'])
    expect(calls.map((call) => call.batch)).toEqual([['1'], ['2']])
  })
})
