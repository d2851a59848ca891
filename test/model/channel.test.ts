import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  canonicalKey,
  channelIDSeenBy,
  channelKeyString,
  ChannelType,
  isValidChannelID,
  isValidUID,
  personChannelID,
  personChannelUIDs,
} from '../../src/model/channel.ts'
import { fuzz } from '../protocol/arbitraries.ts'
import { loadVectors } from '../protocol/vectors.ts'

interface PersonVector {
  readonly name: string
  readonly uidA: string
  readonly uidB: string
  readonly channelId: string
}

const uid = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).filter(isValidUID)

describe('a person channel', () => {
  test.each(loadVectors<PersonVector>('person-channel.json'))('$name: $uidA and $uidB', ({ uidA, uidB, channelId }) => {
    expect(personChannelID(uidA, uidB)).toBe(channelId)
    expect(personChannelID(uidB, uidA)).toBe(channelId)
  })

  test('is one channel for both, from which each sees the other', () => {
    fc.assert(
      fc.property(uid, uid, (a, b) => {
        const key = canonicalKey(a, b, ChannelType.Person)
        expect(canonicalKey(b, a, ChannelType.Person)).toEqual(key)
        expect([...personChannelUIDs(key.channelID)!].sort()).toEqual([a, b].sort())
        expect(channelIDSeenBy(a, key)).toBe(b)
        expect(channelIDSeenBy(b, key)).toBe(a)
      }),
      fuzz(500),
    )
  })

  test.each(['', 'a', '@', 'a@', '@a', 'a@b@c'])('%j is not the id of one', (channelID) => {
    expect(personChannelUIDs(channelID)).toBe(undefined)
  })
})

describe('any other channel', () => {
  test('keeps its id for everybody', () => {
    const key = canonicalKey('ann', 'a@b', ChannelType.Agent)
    expect(key).toEqual({ channelID: 'a@b', channelType: ChannelType.Agent })
    expect(channelIDSeenBy('a', key)).toBe('a@b')
  })

  test('is told from one of another type with the same id', () => {
    expect(channelKeyString({ channelID: '2:x', channelType: 1 })).not.toBe(channelKeyString({ channelID: 'x', channelType: 12 }))
    expect(channelKeyString({ channelID: 'x', channelType: 1 })).not.toBe(channelKeyString({ channelID: 'x', channelType: 2 }))
  })
})

describe('what may be an id', () => {
  const tooLong = 'x'.repeat(32_768)
  test.each(['', ' ', '\t\n', 'a@b', 'a#b', 'a&b', 'a\u0000', 'a\u007f', 'a\ud800', tooLong, '用'.repeat(10_923)])('a uid is not %j', (text) => {
    expect(isValidUID(text)).toBe(false)
  })
  test.each(['a', '用户😀', 'a b', 'x'.repeat(32_767)])('a uid may be %j', (text) => {
    expect(isValidUID(text)).toBe(true)
  })
  test('a channel id may hold an @, and otherwise is held to the same', () => {
    expect(isValidChannelID('a@b')).toBe(true)
    for (const text of ['', ' ', 'a#b', 'a&b', 'a\n', tooLong]) expect(isValidChannelID(text)).toBe(false)
  })
})
