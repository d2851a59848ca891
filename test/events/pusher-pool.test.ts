import { expect, test, vi } from 'vitest'
import { PusherPool } from '../../src/events/pusher-pool.ts'
import { deferred } from '../support.ts'
import { settled, type Deferred } from './workload.ts'

const ROOM = { maxEventsPerKey: 2, maxBytesPerKey: 1_000, maxEvents: 100, maxBytes: 10_000, maxBatchCount: 100 }

function heldPool() {
  const started: string[] = []
  const answers = new Map<string, Deferred>()
  const pool = new PusherPool<string>({
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
  })
  const end = async (event: string): Promise<void> => {
    answers.get(event)!.resolve()
    await settled()
    pool.drain()
  }
  return { pool, started, end }
}

test('pushes of one channel go out one after the other, whatever each of them waits for', async () => {
  const { pool, started, end } = heldPool()
  for (const event of ['seq 1', 'seq 2', 'seq 3']) pool.submit('2:team', event)
  pool.drain()
  expect(started).toEqual(['seq 1'])
  await end('seq 1')
  expect(started).toEqual(['seq 1', 'seq 2'])
  await end('seq 2')
  expect(started).toEqual(['seq 1', 'seq 2', 'seq 3'])
})

test('a push is never turned away: whoever produces them asks isFull first and is told of room', async () => {
  const { pool, started, end } = heldPool()
  expect(pool.isFull('2:team')).toBe(false)
  pool.submit('2:team', 'a')
  pool.submit('2:team', 'b')
  expect(pool.isFull('2:team')).toBe(true)
  expect(pool.isFull('2:other')).toBe(false)
  pool.submit('2:team', 'c')
  const relieved = vi.fn()
  pool.onceRelieved('2:team', relieved)
  pool.drain()
  for (const event of ['a', 'b']) await end(event)
  expect(relieved).not.toHaveBeenCalled() // all three count until their batch has ended
  await end('c')
  expect(relieved).toHaveBeenCalledTimes(1)
  expect(started).toEqual(['a', 'b', 'c'])
  expect(pool.isFull('2:team')).toBe(false)
  await expect(pool.idle()).resolves.toBeUndefined()
})
