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
    expect(recent.find('2:team', message({ messageID: '78', messageSeq: 0 }))).toEqual({ messageID: '77', messageSeq: 5, payload: Buffer.from('hi') })
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
})
