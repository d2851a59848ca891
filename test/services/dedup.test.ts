import { describe, expect, test } from 'vitest'
import type { Message } from '../../src/model/message.ts'
import { RecentMessages } from '../../src/services/dedup.ts'

function message(overrides: Partial<Message> = {}): Message {
  return {
    messageID: '1', messageSeq: 1, clientMsgNo: 'no-1', fromUID: 'ann', channelID: 'team', channelType: 2, payload: Buffer.from('hi'),
    timestampMs: 0, expireSec: 0, topic: '', setting: 0, noPersist: false, redDot: true, syncOnce: false,
    ...overrides,
  }
}

describe('recent messages', () => {
  test('a repeat finds the ids and the payload of the first', () => {
    const recent = new RecentMessages({ maxCount: 10, maxBytes: 1_000_000 })
    recent.remember(message({ messageID: '77', messageSeq: 5 }))
    expect(recent.find(message({ messageID: '78', messageSeq: 0 }))).toMatchObject({ messageID: '77', messageSeq: 5, payload: Buffer.from('hi') })
  })

  test.each<[string, Partial<Message>]>([
    ['another channel', { channelID: 'other' }],
    ['another type of channel', { channelType: 4 }],
    ['another sender', { fromUID: 'bob' }],
    ['another number', { clientMsgNo: 'no-2' }],
  ])('%s is no repeat, and has its own place', (_what, overrides) => {
    const recent = new RecentMessages({ maxCount: 10, maxBytes: 1_000_000 })
    recent.remember(message())
    expect(recent.find(message(overrides))).toBeUndefined()
    recent.remember(message({ ...overrides, messageID: '2' }))
    recent.remember(message({ fromUID: 'eve', messageID: '3' }))
    expect(recent.find(message())?.messageID).toBe('1')
    expect(recent.find(message(overrides))?.messageID).toBe('2')
  })

  test('a message without a number is never remembered', () => {
    const recent = new RecentMessages({ maxCount: 10, maxBytes: 1_000_000 })
    recent.remember(message({ clientMsgNo: '' }))
    expect(recent.find(message({ clientMsgNo: '' }))).toBeUndefined()
  })

  test('beyond the bound the least recently seen is forgotten', () => {
    const recent = new RecentMessages({ maxCount: 2, maxBytes: 1_000_000 })
    recent.remember(message({ clientMsgNo: 'a' }))
    recent.remember(message({ clientMsgNo: 'b' }))
    recent.find(message({ clientMsgNo: 'a' })) // seen again
    recent.remember(message({ clientMsgNo: 'c' }))
    const known = ['a', 'b', 'c'].filter((clientMsgNo) => recent.find(message({ clientMsgNo })) !== undefined)
    expect(known).toEqual(['a', 'c'])
  })

  test('in bytes there is a bound as well, and what is larger than half of it is not kept', () => {
    const recent = new RecentMessages({ maxCount: 1_000, maxBytes: 8_000 })
    const numbers = Array.from({ length: 40 }, (_, index) => `n${index}`)
    for (const clientMsgNo of numbers) recent.remember(message({ clientMsgNo, payload: Buffer.alloc(500) }))
    const known = numbers.filter((clientMsgNo) => recent.find(message({ clientMsgNo })) !== undefined)
    expect(known.length).toBeGreaterThan(0)
    expect(known.length * 500).toBeLessThan(8_000)
    expect(known).toContain('n39')
    recent.remember(message({ clientMsgNo: 'large', payload: Buffer.alloc(5_000) }))
    expect(recent.find(message({ clientMsgNo: 'large' }))).toBeUndefined()
  })

  test.each([1, 2, 3, 10])('never more than %i are known, whatever is seen again', (maxCount) => {
    const recent = new RecentMessages({ maxCount, maxBytes: 1_000_000 })
    for (let index = 0; index < 50; index++) {
      recent.remember(message({ clientMsgNo: `n${index}` }))
      if (index % 3 === 0) recent.find(message({ clientMsgNo: `n${index - 1}` }))
    }
    // Counted from the newest: looking at one that is old makes it young, and forgets others.
    let count = 0
    for (let index = 49; index >= 0; index--) if (recent.find(message({ clientMsgNo: `n${index}` })) !== undefined) count++
    expect(count).toBeGreaterThan(0)
    expect(count).toBeLessThanOrEqual(maxCount)
  })
})
