import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Clock } from '../../src/contracts/clock.ts'
import { snowflake } from '../../src/services/message-id.ts'

const EPOCH_MS = Date.UTC(2023, 0, 1)

function clockAt(read: () => number): Clock {
  const unused = (): never => {
    throw new Error('ids need the wall clock only')
  }
  return { nowMs: read, monotonicMs: unused, setTimer: unused, clearTimer: unused, defer: unused }
}

function parts(id: string): { millisecond: bigint; node: bigint; sequence: bigint } {
  const value = BigInt(id)
  return { millisecond: value >> 22n, node: (value >> 12n) & 0x3ffn, sequence: value & 0xfffn }
}

/** Ids while the clock says what is given, and how many of them at each time. */
function idsAt(nodeID: number, readings: readonly { readonly nowMs: number; readonly count: number }[]): string[] {
  let nowMs = 0
  const ids = snowflake(nodeID, clockAt(() => nowMs))
  return readings.flatMap((reading) => {
    nowMs = reading.nowMs
    return Array.from({ length: reading.count }, () => ids.next())
  })
}

function expectGrowing(ids: readonly string[]): void {
  for (let index = 1; index < ids.length; index++) {
    if (BigInt(ids[index]!) <= BigInt(ids[index - 1]!)) expect.fail(`${ids[index]} comes after ${ids[index - 1]}`)
  }
}

const readings = fc.array(
  fc.record({ nowMs: fc.integer({ min: EPOCH_MS, max: EPOCH_MS + 2 ** 41 - 1_000 }), count: fc.integer({ min: 0, max: 30 }) }),
  { maxLength: 20 },
)

describe('ids of one node', () => {
  test('grow with every call, whatever the clock does', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1022 }), readings, (nodeID, list) => expectGrowing(idsAt(nodeID, list))),
      { seed: 51, numRuns: 200 },
    )
  })

  test('a clock that goes back repeats none and stays on its last millisecond', () => {
    const ids = idsAt(7, [{ nowMs: EPOCH_MS + 1_000, count: 2 }, { nowMs: EPOCH_MS, count: 2 }, { nowMs: EPOCH_MS + 1_001, count: 1 }])
    expect(ids.map(parts)).toEqual([
      { millisecond: 1_000n, node: 7n, sequence: 0n },
      { millisecond: 1_000n, node: 7n, sequence: 1n },
      { millisecond: 1_000n, node: 7n, sequence: 2n },
      { millisecond: 1_000n, node: 7n, sequence: 3n },
      { millisecond: 1_001n, node: 7n, sequence: 0n },
    ])
  })

  test('more than 4096 in a millisecond borrow from the next, and the clock catches up without a repeat', () => {
    const ids = idsAt(1, [{ nowMs: EPOCH_MS + 5, count: 10_000 }, { nowMs: EPOCH_MS + 6, count: 10 }, { nowMs: EPOCH_MS + 8, count: 10 }])
    expectGrowing(ids)
    expect(parts(ids[4_095]!)).toEqual({ millisecond: 5n, node: 1n, sequence: 4_095n })
    expect(parts(ids[4_096]!)).toEqual({ millisecond: 6n, node: 1n, sequence: 0n })
    expect(parts(ids[10_000]!).millisecond).toBe(7n)
    expect(parts(ids[10_010]!)).toEqual({ millisecond: 8n, node: 1n, sequence: 0n })
  })

  test('a clock with fractions of a millisecond repeats none', () => {
    const ids = idsAt(1, Array.from({ length: 40 }, (_, index) => ({ nowMs: EPOCH_MS + 10 + index / 10, count: 2 })))
    expectGrowing(ids)
  })
})

describe('the layout', () => {
  test('is 41 bits of milliseconds since 2023, 10 of node, 12 of sequence, at every size of each', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 1022 }),
        fc.oneof(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 1, max: 2 ** 41 - 1 })),
        fc.integer({ min: 0, max: 4_095 }),
        (nodeID, sinceEpochMs, sequence) => {
          const ids = idsAt(nodeID, [{ nowMs: EPOCH_MS + sinceEpochMs, count: sequence + 1 }])
          expect(parts(ids.at(-1)!)).toEqual({ millisecond: BigInt(sinceEpochMs), node: BigInt(nodeID), sequence: BigInt(sequence) })
        },
      ),
      { seed: 52, numRuns: 60 },
    )
  })

  test.each([
    ['at the epoch', EPOCH_MS],
    ['before the epoch', Date.UTC(2001, 0, 1)],
    ['at the end of the 41 bits', EPOCH_MS + 2 ** 41 - 1],
  ])('every id is the decimal of a positive int64 (%s)', (_when, nowMs) => {
    for (const nodeID of [0, 1, 1022]) {
      for (const id of idsAt(nodeID, [{ nowMs, count: 3 }])) {
        expect(id).toMatch(/^[1-9]\d*$/)
        expect(BigInt(id)).toBeLessThan(2n ** 63n)
      }
    }
  })
})

test('ids of different nodes never meet, also made at the same time', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 1022 }), { minLength: 2, maxLength: 8 }), readings, (nodes, list) => {
      const all = nodes.flatMap((nodeID) => idsAt(nodeID, list))
      expect(new Set(all).size).toBe(all.length)
    }),
    { seed: 53, numRuns: 100 },
  )
})
