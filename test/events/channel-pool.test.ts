import { expect, test, vi } from 'vitest'
import { ChannelPool } from '../../src/events/channel-pool.ts'
import { deferred } from '../support.ts'
import { settled } from './workload.ts'

const ROOM = { maxEventsPerKey: 4, maxBytesPerKey: 1_000, maxEvents: 100, maxBytes: 10_000, maxBatchCount: 100 }

function heldPool() {
  const calls: { readonly channel: string; readonly batch: readonly string[]; end(): Promise<void> }[] = []
  const pool = new ChannelPool<string>({
    ...ROOM,
    run: (channel, batch) => {
      const answer = deferred()
      calls.push({ channel, batch, end: async () => { answer.resolve(); await settled(); pool.drain() } })
      return answer.promise
    },
    schedule: () => undefined,
    report: vi.fn(),
    bytesOf: (event) => event.length,
  })
  return { pool, calls }
}

test('while a batch waits for the disk the next one gathers, as one', async () => {
  const { pool, calls } = heldPool()
  pool.submit('2:team', 'a')
  pool.drain()
  for (const event of ['b', 'c', 'd']) pool.submit('2:team', event)
  pool.drain()
  expect(calls.map((call) => call.batch)).toEqual([['a']])
  await calls[0]!.end()
  expect(calls.map((call) => call.batch)).toEqual([['a'], ['b', 'c', 'd']])
})

test('channels do not wait for each other, also those that differ in type only', () => {
  const { pool, calls } = heldPool()
  pool.submit('2:team', 'a')
  pool.drain()
  pool.submit('4:team', 'b')
  pool.drain()
  expect(calls.map((call) => call.channel)).toEqual(['2:team', '4:team'])
})

test('at the bound of one channel its events are turned away, and room is told of at half', async () => {
  const { pool, calls } = heldPool()
  for (const event of ['a', 'b', 'c', 'd']) expect(pool.submit('2:team', event)).toBe(true)
  expect(pool.submit('2:team', 'e')).toBe(false)
  expect(pool.submit('2:other', 'e')).toBe(true)
  const relieved = vi.fn()
  pool.onceRelieved('2:team', relieved)
  pool.drain()
  expect(relieved).not.toHaveBeenCalled()
  await calls[0]!.end()
  expect(relieved).toHaveBeenCalledTimes(1)
  await calls[1]!.end()
  await expect(pool.idle()).resolves.toBeUndefined()
  expect(pool.depth).toBe(0)
})
