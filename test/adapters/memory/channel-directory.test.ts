import { describe, expect, it } from 'vitest'
import { memoryChannelDirectory } from '../../../src/adapters/memory/index.ts'
import { isPromise } from '../../../src/model/maybe-promise.ts'

const ROOM = { channelID: 'room', channelType: 2 }

describe('memoryChannelDirectory', () => {
  it('answers with plain values, never with promises', () => {
    const directory = memoryChannelDirectory()
    const answers = [
      directory.putChannel({ ...ROOM, ban: false, disband: false }),
      directory.channel(ROOM),
      directory.putMembers(ROOM, [{ uid: 'ann', role: 0 }]),
      directory.member(ROOM, 'ann'),
      directory.members(ROOM),
      directory.channelsOf('ann'),
      directory.addToList(ROOM, 'deny', ['bob']),
      directory.isListed(ROOM, 'deny', 'bob'),
      directory.userFlags('ann'),
      directory.removeChannel(ROOM),
    ]
    expect(answers.filter(isPromise)).toEqual([])
  })

  it('lists 100 000 members in pages that go on where the one before stopped, after most of them have left', async () => {
    const directory = memoryChannelDirectory()
    const uids = Array.from({ length: 100_000 }, (_, i) => `u${i}`)
    await directory.putMembers(ROOM, uids.map((uid) => ({ uid, role: 0 as const })))
    const first = await directory.members(ROOM, { limit: 10_000 })
    await directory.removeMembers(ROOM, uids.slice(0, 95_000))
    const rest = await directory.members(ROOM, { limit: 10_000, cursor: first.cursor ?? '' })
    expect(rest.items.map((member) => member.uid)).toEqual(uids.slice(95_000))
    expect(rest.cursor).toBeUndefined()
  })

  it('takes a cursor of a channel that was removed and made again meanwhile: whoever came since is listed', async () => {
    const directory = memoryChannelDirectory()
    await directory.putMembers(ROOM, ['a', 'b', 'c'].map((uid) => ({ uid, role: 0 as const })))
    const { cursor } = await directory.members(ROOM, { limit: 2 })
    await directory.removeChannel(ROOM)
    await directory.putMembers(ROOM, [{ uid: 'd', role: 0 }])
    const page = await directory.members(ROOM, { cursor: cursor ?? '' })
    expect(page.items.map((member) => member.uid)).toEqual(['d'])
  })

  it('keeps its own objects from being changed by a reader', async () => {
    const directory = memoryChannelDirectory()
    await directory.putChannel({ ...ROOM, ban: true, disband: false })
    await directory.putMembers(ROOM, [{ uid: 'ann', role: 2 }])
    for (const shown of [await directory.channel(ROOM), await directory.member(ROOM, 'ann'), await directory.userFlags('ann')]) {
      expect(Object.isFrozen(shown)).toBe(true)
    }
  })

  it('names what is wrong with a cursor, a limit or a list', () => {
    const directory = memoryChannelDirectory()
    expect(() => directory.members(ROOM, { cursor: 'abc' })).toThrow(/page cursor must be the cursor of the page before, got "abc"/)
    expect(() => directory.channelsOf('ann', { limit: 0 })).toThrow(/page limit must be an integer from 1 to 10000, got 0/)
    expect(() => directory.addToList(ROOM, 'grey' as 'deny', ['ann'])).toThrow(/list must be 'deny' or 'allow', got "grey"/)
  })
})
