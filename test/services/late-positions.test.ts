import { beforeEach, describe, expect, it } from 'vitest'
import { memoryMessageStore } from '../../src/adapters/memory/index.ts'
import type { LogPosition } from '../../src/contracts/message-store.ts'
import { LatePositions } from '../../src/services/late-positions.ts'
import { FakeClock } from '../../src/testing/index.ts'

const at = (index: number, log = 'log'): LogPosition => ({ log, index })

let clock: FakeClock
/** what the store has been given and has not answered yet */
let given: { readonly index: number; readonly kept: () => void; readonly failed: () => void }[]
let late: LatePositions

beforeEach(() => {
  clock = new FakeClock()
  given = []
  const append = (_batches: unknown, position?: LogPosition): Promise<never[]> =>
    new Promise((resolve, reject) => given.push({ index: position!.index, kept: () => resolve([]), failed: () => reject(new Error('no room')) }))
  late = new LatePositions({ messages: { ...memoryMessageStore(), append }, clock })
})

const indexes = (): number[] => given.map(({ index }) => index)

describe('positions that are kept late', () => {
  it('are kept once, the last of each log, a quarter of a second after the first', async () => {
    late.add(at(1))
    await clock.advance(200)
    late.add(at(2))
    late.add(at(7, 'other'))
    await clock.advance(49)
    expect(given).toEqual([])
    await clock.advance(1)
    expect(indexes()).toEqual([2, 7])
    for (const { kept } of given) kept()
    await clock.advance(10_000)
    expect(given).toHaveLength(2)
    expect([late.isAny, clock.pendingTimerCount]).toEqual([false, 0])
  })

  it('are not kept when a later one of the log goes before them', async () => {
    late.add(at(1))
    late.add(at(7, 'other'))
    late.passed(at(2))
    await clock.advance(10_000)
    expect(indexes()).toEqual([7])
  })

  it('are tried again until they are kept, and not once a later one has been given to the store', async () => {
    late.add(at(1))
    late.add(at(7, 'other'))
    await clock.advance(250)
    late.passed(at(2))
    for (const { failed } of given) failed()
    await clock.advance(250)
    expect(indexes()).toEqual([1, 7, 7])
    given[2]!.kept()
    await clock.advance(10_000)
    expect(given).toHaveLength(3)
  })

  it('are all kept when somebody waits for it, also those that come while others are on their way', async () => {
    late.add(at(1))
    await clock.advance(250)
    late.add(at(2))
    let isKept = false
    const keeping = late.keep().then(() => (isKept = true))
    await clock.settle()
    expect(indexes()).toEqual([1])
    given[0]!.kept()
    await clock.settle()
    expect([indexes(), isKept]).toEqual([[1, 2], false])
    given[1]!.kept()
    await keeping
    expect(clock.pendingTimerCount).toBe(0)
  })

  it('are kept for who waits though positions of other logs come without end', async () => {
    late.add(at(1))
    await clock.advance(250)
    let isKept = false
    late.add(at(2))
    const keeping = late.keep().then(() => (isKept = true))
    for (let round = 0; round < 3 && !isKept; round++) {
      late.add(at(7 + round, 'other'))
      given.at(-1)!.kept()
      for (const { kept } of given) kept()
      await clock.settle()
    }
    expect(isKept).toBe(true)
    await keeping
    expect(indexes().filter((index) => index === 2)).toHaveLength(1)
  })

  it('are tried again as they are by then when more has become late meanwhile', async () => {
    late.add(at(1))
    await clock.advance(250)
    late.add(at(2))
    given[0]!.failed()
    await clock.advance(250)
    expect(indexes()).toEqual([1, 2])
  })

  it('are no more after the end, whatever comes back behind it', async () => {
    late.add(at(1))
    const ending = late.end()
    await clock.settle()
    given[0]!.failed() // and the end does not wait for it to succeed
    await ending
    late.add(at(2))
    await clock.advance(1_000)
    expect([indexes(), late.isAny, clock.pendingTimerCount]).toEqual([[1], false, 0])
  })

  it('reject for who waits when they cannot be kept, and are kept later', async () => {
    late.add(at(1))
    const keeping = expect(late.keep()).rejects.toThrow('no room')
    given[0]!.failed()
    await keeping
    expect(late.isAny).toBe(true)
    await clock.advance(250)
    expect(indexes()).toEqual([1, 1])
  })

  it('are dropped with those on their way when the store is to be another one', async () => {
    late.add(at(1))
    late.add(at(7, 'other'))
    await clock.advance(250)
    late.add(at(2))
    let isDropped = false
    const dropping = late.drop().then(() => (isDropped = true))
    given[0]!.failed()
    await clock.settle()
    expect(isDropped).toBe(false)
    given[1]!.kept()
    await dropping
    await clock.advance(10_000)
    expect(indexes()).toEqual([1, 7])
    expect([late.isAny, clock.pendingTimerCount]).toEqual([false, 0])
  })
})
