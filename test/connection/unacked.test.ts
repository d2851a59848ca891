import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UnackedRecvs } from '../../src/connection/unacked.ts'
import type { Message } from '../../src/model/message.ts'

function message(id: number): Message {
  return {
    messageID: String(id), messageSeq: id, clientMsgNo: '', fromUID: 'ann', channelID: 'team', channelType: 2, payload: Buffer.from('hi'),
    timestampMs: 0, expireSec: 0, topic: '', setting: 0, noPersist: false, redDot: true, syncOnce: false,
  }
}

const ids = (messages: readonly Message[]): string[] => messages.map(({ messageID }) => messageID)

describe('a table of unacknowledged messages', () => {
  test('finds what is in it, and not what was acknowledged or never there', () => {
    const table = new UnackedRecvs(10)
    table.add(message(1), 100)
    table.add(message(2), 100)
    table.remove('1')
    table.remove('1')
    table.remove('7')
    expect(table.find('1')).toBeUndefined()
    expect(table.find('2')).toEqual(message(2))
    expect(table.find('7')).toBeUndefined()
    expect(table.count).toBe(1)
  })

  test('at its bound forgets the oldest, says so, and it is then neither found nor due', () => {
    const table = new UnackedRecvs(2)
    expect([1, 2, 3].map((id) => table.add(message(id), 100))).toEqual([undefined, undefined, message(1)])
    expect(table.count).toBe(2)
    expect(table.find('1')).toBeUndefined()
    expect(ids(table.takeDue(100, 100, 5).again)).toEqual(['2', '3'])
  })

  test('gives what is due in the order in which it was pushed, and no message before its time', () => {
    const table = new UnackedRecvs(10)
    table.add(message(1), 100)
    table.add(message(2), 150)
    table.add(message(3), 250)
    expect(table.nextDueMs).toBe(100)
    expect(ids(table.takeDue(99, 100, 5).again)).toEqual([])
    expect(ids(table.takeDue(150, 100, 5).again)).toEqual(['1', '2'])
    expect(table.nextDueMs).toBe(250)
    expect(ids(table.takeDue(250, 100, 5).again)).toEqual(['3', '1', '2'])
  })

  test('gives each maxRedeliveries times, then up, once; an acknowledgement is too late then', () => {
    const table = new UnackedRecvs(10)
    table.add(message(1), 100)
    for (let round = 1; round <= 3; round++) {
      expect(table.takeDue(round * 100, 100, 3)).toEqual({ again: [message(1)], givenUp: [] })
    }
    expect(table.takeDue(400, 100, 3)).toEqual({ again: [], givenUp: [message(1)] })
    expect(table.takeDue(10_000, 100, 3)).toEqual({ again: [], givenUp: [] })
    expect(table.find('1')).toBeUndefined()
    expect(table.nextDueMs).toBeUndefined()
  })

  test('allowed no redelivery gives up what is due at once', () => {
    const table = new UnackedRecvs(10)
    table.add(message(1), 100)
    expect(table.takeDue(100, 100, 0)).toEqual({ again: [], givenUp: [message(1)] })
  })

  test.each([1, 20])('has a message that is pushed again once, with %i others, as it came last and due anew', (otherCount) => {
    const table = new UnackedRecvs(100)
    table.add(message(1), 100)
    for (let id = 2; id <= otherCount + 1; id++) table.add(message(id), 110)
    table.add({ ...message(1), payload: Buffer.from('later') }, 120)
    expect(table.count).toBe(otherCount + 1)
    expect(table.find('1')?.payload.toString()).toBe('later')
    expect(table.takeDue(100, 100, 5).again).toEqual([])
    expect(ids(table.takeDue(120, 100, 5).again).at(-1)).toBe('1')
    table.remove('1')
    expect(table.find('1')).toBeUndefined()
    expect(table.count).toBe(otherCount)
  })

  test('has a message once however often it is pushed, acknowledged and sent again', () => {
    const pushed = fc.record({ kind: fc.constantFrom('push' as const, 'ack' as const, 'due' as const), id: fc.integer({ min: 1, max: 14 }) })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 14 }), fc.array(pushed, { maxLength: 200 }), (maxCount, list) => {
        const table = new UnackedRecvs(maxCount)
        let expected: string[] = []
        list.forEach(({ kind, id }, nowMs) => {
          const messageID = String(id)
          if (kind === 'push') {
            expected = expected.filter((each) => each !== messageID)
            const forgotten = expected.length >= maxCount ? expected.shift() : undefined
            expect(table.add(message(id), nowMs + 5)?.messageID).toBe(forgotten)
            expected.push(messageID)
          } else if (kind === 'ack') {
            expect(table.take(0, id)?.messageID).toBe(expected.includes(messageID) ? messageID : undefined)
            expected = expected.filter((each) => each !== messageID)
          } else {
            const again = ids(table.takeDue(nowMs, 5, 1_000).again)
            expect(again).toEqual(expected.slice(0, again.length))
            expected = [...expected.slice(again.length), ...again]
          }
          expect(table.count).toBe(expected.length)
        })
        expect(ids(table.takeDue(1_000, 5, 1_000).again)).toEqual(expected)
      }),
      { seed: 63, numRuns: 500 },
    )
  })

  test('is empty after clear', () => {
    const table = new UnackedRecvs(10)
    table.add(message(1), 100)
    table.clear()
    expect(table.count).toBe(0)
    expect(table.nextDueMs).toBeUndefined()
    expect(table.takeDue(1_000, 100, 5)).toEqual({ again: [], givenUp: [] })
  })

  test('whatever is pushed, acknowledged and redelivered: never above its bound, and nothing comes again too soon or too often', () => {
    const action = fc.oneof(
      { weight: 3, arbitrary: fc.constant({ kind: 'push' as const, value: 0 }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('ack' as const), value: fc.nat(30) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('pass' as const), value: fc.integer({ min: 1, max: 150 }) }) },
    )
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 0, max: 3 }), fc.array(action, { maxLength: 60 }), (maxCount, maxRedeliveries, list) => {
        const table = new UnackedRecvs(maxCount)
        const sent = new Map<string, { lastMs: number; times: number }>()
        const over = new Set<string>()
        let nowMs = 0
        let nextID = 1
        for (const { kind, value } of list) {
          if (kind === 'push') {
            const id = nextID++
            sent.set(String(id), { lastMs: nowMs, times: 0 })
            table.add(message(id), nowMs + 100)
          } else if (kind === 'ack') {
            table.remove(String(value))
            over.add(String(value))
            expect(table.find(String(value))).toBeUndefined()
          } else {
            nowMs += value
            const { again, givenUp } = table.takeDue(nowMs, 100, maxRedeliveries)
            for (const messageID of ids(again)) {
              const one = sent.get(messageID)!
              expect(over.has(messageID)).toBe(false)
              expect(nowMs - one.lastMs).toBeGreaterThanOrEqual(100)
              expect(++one.times).toBeLessThanOrEqual(maxRedeliveries)
              one.lastMs = nowMs
            }
            for (const messageID of ids(givenUp)) {
              expect(over.has(messageID)).toBe(false)
              expect(sent.get(messageID)!.times).toBe(maxRedeliveries)
              over.add(messageID)
            }
          }
          expect(table.count).toBeLessThanOrEqual(maxCount)
          expect(table.nextDueMs === undefined).toBe(table.count === 0)
          // Numbers that come later may be acknowledged already only by chance of the test.
          if (kind === 'ack' && value >= nextID) over.delete(String(value))
        }
      }),
      { seed: 62, numRuns: 200 },
    )
  })

  test('taken by the halves of its id is what was found by its digits, in whatever order a client acknowledges', () => {
    const action = fc.oneof(
      { weight: 3, arbitrary: fc.constant({ kind: 'push' as const, value: 0 }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('take' as const), value: fc.nat(300) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('oldest' as const), value: fc.nat(40) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), value: fc.nat(300) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('pass' as const), value: fc.integer({ min: 1, max: 60 }) }) },
    )
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), fc.array(action, { maxLength: 400, size: 'max' }), (maxCount, list) => {
        const table = new UnackedRecvs(maxCount)
        /** what a plain map would hold, in order of the due times */
        const model = new Map<string, number>()
        let nowMs = 0
        let nextID = 1
        for (const { kind, value } of list) {
          if (kind === 'push') {
            for (let count = 0; count < 4; count++) {
              if (model.size >= maxCount) model.delete([...model.keys()][0]!)
              model.set(String(nextID), nowMs + 100)
              table.add(message(nextID++), nowMs + 100)
            }
          } else if (kind === 'pass') {
            nowMs += value
            const due = [...model].filter(([, dueMs]) => dueMs <= nowMs).map(([id]) => id)
            for (const id of due) {
              model.delete(id)
              model.set(id, nowMs + 100)
            }
            expect(ids(table.takeDue(nowMs, 100, 1_000).again)).toEqual(due)
          } else {
            const id = kind === 'oldest' ? [...model.keys()][value % Math.max(1, Math.min(3, model.size))] ?? '0' : String(value)
            expect(table.find(id)?.messageID).toBe(model.has(id) ? id : undefined)
            if (kind === 'remove') table.remove(id)
            else expect(table.take(0, Number(id))?.messageID).toBe(model.has(id) ? id : undefined)
            model.delete(id)
          }
          expect(table.count).toBe(model.size)
          expect(table.nextDueMs).toBe([...model.values()][0])
        }
      }),
      { seed: 7, numRuns: 300 },
    )
  })

  test('a first message that is never acknowledged makes no other one slow to find or keep its place for ever', () => {
    const table = new UnackedRecvs(1_000)
    table.add(message(1), 100)
    for (let id = 2; id <= 50_000; id++) {
      table.add(message(id), 100)
      expect(table.take(0, id)?.messageID).toBe(String(id))
    }
    expect(table.count).toBe(1)
    expect(ids(table.takeDue(100, 100, 5).again)).toEqual(['1'])
  })
})
