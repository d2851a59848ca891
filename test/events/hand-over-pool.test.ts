import { expect, test, vi } from 'vitest'
import { HandOverPool, type HandOver } from '../../src/events/hand-over-pool.ts'
import { deferred } from '../support.ts'
import { settled, type Deferred } from './workload.ts'

const ROOM = { maxEventsPerKey: 4, maxBytesPerKey: 1_000, maxEvents: 100, maxBytes: 10_000, maxBatchCount: 3 }
const TEAM = '2:team'

/** A pool whose deliveries last until `end` says otherwise. */
function heldPool() {
  const delivered: string[] = []
  const failures: string[] = []
  const report = vi.fn()
  let answer: Deferred | undefined
  const pool = new HandOverPool<string>({
    ...ROOM,
    deliver: (channel, { sources, receivers, reach }) => {
      delivered.push(`${channel} ${sources.join('+')} to ${receivers?.join('+') ?? 'members'} ${reach}`)
      if (sources.includes('at once')) return undefined
      if (sources.includes('broken')) throw new Error('no members')
      answer = deferred()
      return answer.promise
    },
    schedule: () => undefined,
    report,
  })
  const handOver = (source: string, changes: Partial<HandOver<string>> = {}): HandOver<string> => ({
    sources: [source],
    receivers: undefined,
    reach: 'all',
    queueBytes: 10,
    failed: (reason) => failures.push(`${source}: ${(reason as Error).message}`),
    ...changes,
  })
  const submit = (source: string, changes: Partial<HandOver<string>> = {}): void => pool.submit(TEAM, handOver(source, changes))
  const end = async (error?: Error): Promise<void> => {
    const ended = answer!
    if (error === undefined) ended.resolve()
    else ended.reject(error)
    await settled()
    pool.drain()
    await settled()
  }
  return { pool, delivered, failures, report, handOver, submit, end }
}

test('what is handed over at once never waits in the pool', () => {
  const { pool, delivered, submit } = heldPool()
  submit('at once')
  expect(delivered).toEqual([`${TEAM} at once to members all`])
  expect(pool.depth).toBe(0)
  submit('at once')
  expect(delivered).toHaveLength(2)
})

test('what gathers behind a delivery is delivered together, in order, and no more at a time than make up a batch', async () => {
  const { pool, delivered, submit, end } = heldPool()
  for (const source of ['1', '2', '3', '4', '5', '6']) submit(source)
  pool.drain()
  expect(delivered).toEqual([`${TEAM} 1 to members all`])
  await end()
  expect(delivered.slice(1)).toEqual([`${TEAM} 2+3 to members all`]) // the queue takes three at a time, and the first of them was 1
  await end()
  expect(delivered.slice(2)).toEqual([`${TEAM} 4+5+6 to members all`])
  await end()
  expect(delivered).toHaveLength(3)
  expect(pool.depth).toBe(0)
})

test('a batch is counted in messages and not in hand-overs', async () => {
  const { pool, delivered, submit, end } = heldPool()
  submit('1')
  submit('2', { sources: ['2a', '2b'] })
  submit('3', { sources: ['3a', '3b'] })
  submit('4')
  pool.drain()
  await end()
  expect(delivered.slice(1)).toEqual([`${TEAM} 2a+2b to members all`])
  await end()
  expect(delivered.slice(2)).toEqual([`${TEAM} 3a+3b to members all`])
  await end()
  expect(delivered.slice(3)).toEqual([`${TEAM} 4 to members all`])
  await end()
})

test('all that a batch holds already counts for what is added to it', async () => {
  const { pool, delivered, submit, end } = heldPool()
  submit('0')
  pool.drain()
  submit('1')
  submit('2')
  submit('3', { sources: ['3a', '3b'] })
  await end()
  expect(delivered.slice(1)).toEqual([`${TEAM} 1+2 to members all`])
  await end()
  expect(delivered.slice(2)).toEqual([`${TEAM} 3a+3b to members all`])
  await end()
})

test('those for other receivers, or of another reach, are delivered by themselves', async () => {
  const { pool, delivered, submit, end } = heldPool()
  submit('0')
  pool.drain()
  submit('1')
  submit('2', { receivers: ['ann'] })
  submit('3', { receivers: ['ann'], reach: 'here' })
  for (let n = 0; n < 4; n++) await end()
  expect(delivered.slice(1)).toEqual([`${TEAM} 1 to members all`, `${TEAM} 2 to ann all`, `${TEAM} 3 to ann here`])
})

test('an action runs at once when nothing is under way, and else between what came before it and what comes behind it', async () => {
  const { pool, delivered, submit, end } = heldPool()
  pool.behind(TEAM, () => delivered.push('first action'))
  expect(delivered).toEqual(['first action'])
  submit('0')
  pool.drain()
  submit('1')
  pool.behind(TEAM, () => delivered.push('second action'))
  submit('2')
  for (let n = 0; n < 3; n++) await end()
  expect(delivered.slice(1)).toEqual([`${TEAM} 0 to members all`, `${TEAM} 1 to members all`, 'second action', `${TEAM} 2 to members all`])
})

test('an action that throws is reported, and what comes behind it is delivered all the same', async () => {
  const { pool, delivered, report, submit, end } = heldPool()
  const defect = new Error('of the action')
  submit('0')
  pool.drain()
  pool.behind(TEAM, () => {
    throw defect
  })
  submit('1')
  await end()
  expect(report.mock.calls).toEqual([[defect]])
  expect(delivered.at(-1)).toBe(`${TEAM} 1 to members all`)
  await end()
})

test('each of those that a failed delivery held is told of it, whether it throws or rejects', async () => {
  const { pool, failures, report, submit, end } = heldPool()
  submit('broken')
  expect(failures).toEqual(['broken: no members'])
  expect(pool.depth).toBe(0)

  submit('0')
  pool.drain()
  submit('1')
  submit('2')
  await end(new Error('gone'))
  expect(failures.slice(1)).toEqual(['0: gone'])
  await end(new Error('gone again'))
  expect(failures.slice(2)).toEqual(['1: gone again', '2: gone again'])
  expect(report).not.toHaveBeenCalled()
})

test('a channel is full at its bound, others are not, and it tells once when it has fallen to half of it', async () => {
  const { pool, submit, end } = heldPool()
  for (const source of ['1', '2', '3']) submit(source)
  pool.drain()
  expect(pool.isFull(TEAM)).toBe(false)
  submit('4')
  expect(pool.isFull(TEAM)).toBe(true)
  expect(pool.isFull('2:other')).toBe(false)
  const relieved = vi.fn()
  pool.onceRelieved(TEAM, relieved)
  expect(relieved).not.toHaveBeenCalled()
  for (let n = 0; n < 3; n++) await end()
  expect(relieved).toHaveBeenCalledTimes(1)
  await expect(pool.idle()).resolves.toBeUndefined()
})
