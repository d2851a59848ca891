import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { runInOrder, UserPool, type EventPoolOptions } from '../../src/events/user-pool.ts'
import { deferred } from '../support.ts'
import { CASES, settled, type Deferred } from './workload.ts'

const ROOM = { maxEventsPerKey: 100, maxBytesPerKey: 10_000, maxEvents: 1_000, maxBytes: 100_000, maxBatchCount: 100 }

/** A pool whose events end when the test says so. */
function heldPool(limits: Partial<EventPoolOptions<string>> = {}) {
  const started: string[] = []
  const answers = new Map<string, Deferred>()
  const pool = new UserPool<string>({
    ...ROOM,
    run: (event) => {
      started.push(event)
      const answer = deferred()
      answers.set(event, answer)
      return answer.promise
    },
    schedule: () => undefined,
    report: vi.fn(),
    bytesOf: (event) => event.length,
    ...limits,
  })
  const end = async (event: string): Promise<void> => {
    answers.get(event)!.resolve()
    await settled()
    pool.drain()
  }
  return { pool, started, end }
}

describe('SENDs of a user', () => {
  test('are handled one at a time and in order, also those of several devices', async () => {
    const { pool, started, end } = heldPool()
    for (const event of ['1', '2', '3']) pool.submitSend('ann', event)
    pool.drain()
    expect(started).toEqual(['1'])
    await end('1')
    expect(started).toEqual(['1', '2'])
    await end('2')
    await end('3')
    expect(started).toEqual(['1', '2', '3'])
    expect(pool.depth).toBe(0)
  })

  test('do not wait for those of another user', () => {
    const { pool, started } = heldPool()
    pool.submitSend('ann', 'hangs')
    pool.drain()
    pool.submitSend('bob', '1')
    pool.drain()
    expect(started).toEqual(['hangs', '1'])
  })

  test('hold up no end of a connection, which waits for its CONNECT only and finds room where there is none', async () => {
    const { pool, started, end } = heldPool({ maxEventsPerKey: 1 })
    pool.submitSend('ann', 'send')
    expect(pool.submitSend('ann', 'one too many')).toBe(false)
    pool.submitConnect('7', 'connect')
    pool.submitClose('7', 'close')
    pool.submitClose('8', 'close of another')
    pool.drain()
    expect(started).toEqual(['send', 'connect', 'close of another'])
    await end('connect')
    pool.drain()
    expect(started).toEqual(['send', 'connect', 'close of another', 'close'])
  })

  test('are full when isFull says so, and tell when there is room again', async () => {
    const { pool, end } = heldPool({ maxEventsPerKey: 1 })
    expect(pool.turnsAway('ann', 1)).toBe(false)
    pool.submitSend('ann', '1')
    expect(pool.turnsAway('ann', 1)).toBe(true)
    expect(pool.turnsAway('bob', 1)).toBe(false)
    const relieved = vi.fn()
    pool.onceRelieved('ann', relieved)
    pool.drain()
    expect(relieved).not.toHaveBeenCalled()
    await end('1')
    expect(relieved).toHaveBeenCalledTimes(1)
  })
})

describe('PING and RECVACK', () => {
  test('never wait for a SEND, also one of the same user that was first', () => {
    const { pool, started } = heldPool()
    pool.submitSend('ann', 'hangs')
    pool.drain()
    pool.submitSend('ann', 'behind it')
    pool.submitSign('connection 1', 'ping')
    pool.drain()
    expect(started).toEqual(['hangs', 'ping'])
  })

  test('go before the SENDs of the same turn', () => {
    const { pool, started } = heldPool()
    pool.submitSend('ann', 'send')
    pool.submitSign('1', 'ping')
    pool.drain()
    expect(started).toEqual(['ping', 'send'])
  })

  test('keep their order on one connection', async () => {
    const { pool, started, end } = heldPool()
    pool.submitSign('1', 'ack')
    pool.submitSign('1', 'ping')
    pool.drain()
    await end('ack')
    expect(started).toEqual(['ack', 'ping'])
  })

  test('find room when the SENDs of everyone have used up theirs', () => {
    const { pool } = heldPool({ maxEvents: 1 })
    expect(pool.submitSend('ann', 'send')).toBe(true)
    expect(pool.submitSend('bob', 'send')).toBe(false)
    expect(pool.submitSign('1', 'ping')).toBe(true)
  })
})

describe('CONNECT', () => {
  test('of a connection that is called as a user is does not wait for that user', () => {
    const { pool, started } = heldPool()
    pool.submitSend('7', 'hangs')
    pool.drain()
    pool.submitConnect('7', 'connect')
    pool.drain()
    expect(started).toEqual(['hangs', 'connect'])
  })

  test('of two connections does not wait for each other', () => {
    const { pool, started } = heldPool()
    pool.submitConnect('1', 'first')
    pool.submitConnect('2', 'second')
    pool.drain()
    expect(started).toEqual(['first', 'second'])
  })
})

test('idle() resolves only when requests and signs have both ended', async () => {
  const { pool, end } = heldPool()
  pool.submitSend('ann', 'send')
  pool.submitSign('1', 'ping')
  pool.drain()
  let idle = false
  void pool.idle().then(() => (idle = true))
  await end('ping')
  expect(idle).toBe(false)
  await end('send')
  await settled()
  expect(idle).toBe(true)
  expect(pool.depth).toBe(0)
})

describe('runInOrder', () => {
  test('makes no promise when no event does', () => {
    const seen: number[] = []
    expect(runInOrder([1, 2, 3], (event) => void seen.push(event), vi.fn())).toBeUndefined()
    expect(seen).toEqual([1, 2, 3])
  })

  test('begins an event only when the one before it has ended, whichever of them wait', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { maxLength: 12 }), async (waits) => {
        const log: string[] = []
        const result = runInOrder([...waits.keys()], (index) => {
          log.push(`begin ${index}`)
          if (!waits[index]) return void log.push(`end ${index}`)
          return settled().then(() => void log.push(`end ${index}`))
        }, vi.fn())
        expect(result === undefined).toBe(!waits.includes(true))
        await result
        expect(log).toEqual([...waits.keys()].flatMap((index) => [`begin ${index}`, `end ${index}`]))
      }),
      CASES,
    )
  })

  test('tells what an event throws or rejects with, and goes on behind it', async () => {
    const begun: string[] = []
    const report = vi.fn<(defect: unknown) => void>()
    await runInOrder(['throws', 'rejects', 'is fine'], (event) => {
      begun.push(event)
      if (event === 'throws') throw new Error(event)
      if (event === 'rejects') return Promise.reject(new Error(event))
    }, report)
    expect(begun).toEqual(['throws', 'rejects', 'is fine'])
    expect(report.mock.calls.map(([defect]) => (defect as Error).message)).toEqual(['throws', 'rejects'])
  })

  test('of a very long batch does not run out of stack', () => {
    let count = 0
    void runInOrder(Array.from({ length: 200_000 }), () => void count++, vi.fn())
    expect(count).toBe(200_000)
  })
})
