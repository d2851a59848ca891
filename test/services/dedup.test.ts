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
    recent.remember('2:team', message({ messageID: '77', messageSeq: 5 }))
    expect(recent.find('2:team', message({ messageID: '78', messageSeq: 0 }))).toMatchObject({ messageID: '77', messageSeq: 5, payload: Buffer.from('hi') })
  })

  test.each<[string, string, Partial<Message>]>([
    ['another channel', '2:other', {}],
    ['another type of channel', '4:team', {}],
    ['another sender', '2:team', { fromUID: 'bob' }],
    ['another number', '2:team', { clientMsgNo: 'no-2' }],
  ])('%s is no repeat', (_what, channel, overrides) => {
    const recent = new RecentMessages({ maxCount: 10, maxBytes: 1_000_000 })
    recent.remember('2:team', message())
    expect(recent.find(channel, message(overrides))).toBeUndefined()
  })

  test('names that run into each other are told apart', () => {
    const recent = new RecentMessages({ maxCount: 10, maxBytes: 1_000_000 })
    recent.remember('2:ab', message({ fromUID: 'c', clientMsgNo: 'd' }))
    for (const [channel, fromUID, clientMsgNo] of [
      ['2:a', 'bc', 'd'],
      ['2:abc', 'd', ''],
      ['2:ab', 'cd', ''],
      ['2:ab', '', 'cd'],
    ] as const) {
      expect(recent.find(channel, message({ fromUID, clientMsgNo }))).toBeUndefined()
    }
  })

  test('a message without a number is never remembered', () => {
    const recent = new RecentMessages({ maxCount: 10, maxBytes: 1_000_000 })
    recent.remember('2:team', message({ clientMsgNo: '' }))
    expect(recent.find('2:team', message({ clientMsgNo: '' }))).toBeUndefined()
  })

  test('beyond the bound the least recently seen is forgotten', () => {
    const recent = new RecentMessages({ maxCount: 2, maxBytes: 1_000_000 })
    recent.remember('2:team', message({ clientMsgNo: 'a' }))
    recent.remember('2:team', message({ clientMsgNo: 'b' }))
    recent.find('2:team', message({ clientMsgNo: 'a' })) // seen again
    recent.remember('2:team', message({ clientMsgNo: 'c' }))
    const known = ['a', 'b', 'c'].filter((clientMsgNo) => recent.find('2:team', message({ clientMsgNo })) !== undefined)
    expect(known).toEqual(['a', 'c'])
  })

  test('in bytes there is a bound as well, and what is larger than half of it is not kept', () => {
    const recent = new RecentMessages({ maxCount: 1_000, maxBytes: 8_000 })
    const numbers = Array.from({ length: 40 }, (_, index) => `n${index}`)
    for (const clientMsgNo of numbers) recent.remember('2:team', message({ clientMsgNo, payload: Buffer.alloc(500) }))
    const known = numbers.filter((clientMsgNo) => recent.find('2:team', message({ clientMsgNo })) !== undefined)
    expect(known.length).toBeGreaterThan(0)
    expect(known.length * 500).toBeLessThan(8_000)
    expect(known).toContain('n39')
    recent.remember('2:team', message({ clientMsgNo: 'large', payload: Buffer.alloc(5_000) }))
    expect(recent.find('2:team', message({ clientMsgNo: 'large' }))).toBeUndefined()
  })

  test.each([1, 2, 3, 10])('never more than %i are known, whatever is seen again', (maxCount) => {
    const recent = new RecentMessages({ maxCount, maxBytes: 1_000_000 })
    for (let index = 0; index < 50; index++) {
      recent.remember('2:team', message({ clientMsgNo: `n${index}` }))
      if (index % 3 === 0) recent.find('2:team', message({ clientMsgNo: `n${index - 1}` }))
    }
    // Counted from the newest: looking at one that is old makes it young, and forgets others.
    let count = 0
    for (let index = 49; index >= 0; index--) if (recent.find('2:team', message({ clientMsgNo: `n${index}` })) !== undefined) count++
    expect(count).toBeGreaterThan(0)
    expect(count).toBeLessThanOrEqual(maxCount)
  })
})
