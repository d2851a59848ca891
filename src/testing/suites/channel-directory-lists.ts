import assert from 'node:assert/strict'
import type { ChannelDirectory, ChannelList } from '../../contracts/channel-directory.ts'
import { ChannelType, MemberRole } from '../../model/channel.ts'
import type { Scenario } from './contract-case.ts'
import { channel, ROOM } from './samples.ts'

export const LISTS: readonly ChannelList[] = ['deny', 'allow']
export const NO_FLAGS = { banned: false, sendBanned: false }

/** The deny and the allow list of a channel. */
export const listScenarios: readonly Scenario<ChannelDirectory>[] = [
  [
    'the deny and the allow list are two lists, and every channel has its own',
    async (directory) => {
      await directory.addToList(ROOM, 'deny', ['ann', 'bob'])
      await directory.addToList(ROOM, 'deny', ['ann'])
      assert.deepEqual([...(await directory.listed(ROOM, 'deny')).items].sort(), ['ann', 'bob'])
      assert.equal(await directory.isListed(ROOM, 'deny', 'ann'), true)
      assert.equal(await directory.isListed(ROOM, 'allow', 'ann'), false)
      assert.equal(await directory.isListEmpty(ROOM, 'deny'), false)
      assert.equal(await directory.isListEmpty(ROOM, 'allow'), true)
      for (const other of [channel('other'), channel(ROOM.channelID, ChannelType.Community)]) {
        assert.equal(await directory.isListed(other, 'deny', 'ann'), false)
        assert.equal(await directory.isListEmpty(other, 'deny'), true)
      }
    },
  ],
  [
    'a list is empty again when its last entry has been removed',
    async (directory) => {
      await directory.addToList(ROOM, 'allow', ['ann', 'bob'])
      await directory.removeFromList(ROOM, 'allow', ['ann', 'nobody'])
      assert.equal(await directory.isListed(ROOM, 'allow', 'ann'), false)
      assert.equal(await directory.isListEmpty(ROOM, 'allow'), false)
      await directory.removeFromList(ROOM, 'allow', ['bob', 'bob'])
      assert.equal(await directory.isListEmpty(ROOM, 'allow'), true)
      assert.deepEqual(await directory.listed(ROOM, 'allow'), { items: [] })
    },
  ],
  [
    "a person's own lists hang on the channel (uid, person)",
    async (directory) => {
      await directory.addToList(channel('ann', ChannelType.Person), 'deny', ['bob'])
      assert.equal(await directory.isListed(channel('ann', ChannelType.Person), 'deny', 'bob'), true)
      assert.equal(await directory.isListed(channel('bob', ChannelType.Person), 'deny', 'ann'), false)
      assert.equal(await directory.isListed(channel('ann', ChannelType.Group), 'deny', 'bob'), false)
    },
  ],
  [
    'entries of a list are not members, and members are on no list',
    async (directory) => {
      await directory.putMembers(ROOM, [{ uid: 'ann', role: MemberRole.Member }])
      await directory.addToList(ROOM, 'allow', ['bob'])
      assert.equal(await directory.member(ROOM, 'bob'), undefined)
      assert.equal(await directory.isListed(ROOM, 'allow', 'ann'), false)
      assert.deepEqual(await directory.channelsOf('bob'), { items: [] })
    },
  ],
]

/** The standing of users. */
export const userScenarios: readonly Scenario<ChannelDirectory>[] = [
  [
    'setUserFlags changes what it names and nothing else',
    async (directory) => {
      const flags = async (uid: string): Promise<unknown> => ({ ...(await directory.userFlags(uid)) })
      await directory.setUserFlags('ann', { sendBanned: true })
      assert.deepEqual(await flags('ann'), { banned: false, sendBanned: true })
      await directory.setUserFlags('ann', { banned: true })
      assert.deepEqual(await flags('ann'), { banned: true, sendBanned: true })
      await directory.setUserFlags('ann', {})
      await directory.setUserFlags('ann', { sendBanned: false })
      assert.deepEqual(await flags('ann'), { banned: true, sendBanned: false })
      assert.deepEqual(await flags('bob'), NO_FLAGS)
      await directory.setUserFlags('ann', { banned: false })
      assert.deepEqual(await flags('ann'), NO_FLAGS)
    },
  ],
]
