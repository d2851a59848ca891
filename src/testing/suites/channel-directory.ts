import assert from 'node:assert/strict'
import type { ChannelDirectory } from '../../contracts/channel-directory.ts'
import { channelInfo, ChannelType, MemberRole, type ChannelFlags, type ChannelInfo, type ChannelKey } from '../../model/channel.ts'
import { listScenarios, LISTS, NO_FLAGS, userScenarios } from './channel-directory-lists.ts'
import { pagingScenarios } from './channel-directory-paging.ts'
import { infoIn, standingScenarios, standingSurvivalScenarios } from './channel-directory-standing.ts'
import {
  casesOf,
  durableCasesOf,
  started,
  type ContractCase,
  type DurableContractOptions,
  type DurableScenario,
  type Opened,
  type Scenario,
} from './contract-case.ts'
import { channel, HOSTILE_IDS, ROOM } from './samples.ts'

/** The promises of a ChannelDirectory. */
export function channelDirectoryContract<O extends Opened<ChannelDirectory>>(
  options: DurableContractOptions<ChannelDirectory, O>,
): ContractCase[] {
  return [
    ...casesOf(options, [...channelScenarios, ...memberScenarios, ...listScenarios, ...userScenarios, ...standingScenarios, ...pagingScenarios]),
    ...durableCasesOf(options, [...survivalScenarios, ...standingSurvivalScenarios]),
  ]
}

function infoOf(key: ChannelKey, over: ChannelFlags = {}): Required<ChannelInfo> {
  return channelInfo(key, over)
}

const channelScenarios: readonly Scenario<ChannelDirectory>[] = [
  [
    'questions about what is not there are answered, not thrown',
    async (directory) => {
      const unknown = channel('nowhere')
      assert.equal(await directory.channel(unknown), undefined)
      assert.equal(await directory.member(unknown, 'ann'), undefined)
      assert.deepEqual(await directory.members(unknown), { items: [] })
      assert.deepEqual(await directory.channelsOf('nobody'), { items: [] })
      for (const list of LISTS) {
        assert.equal(await directory.isListed(unknown, list, 'ann'), false)
        assert.equal(await directory.isListEmpty(unknown, list), true)
        assert.deepEqual(await directory.listed(unknown, list), { items: [] })
        await directory.removeFromList(unknown, list, ['ann'])
      }
      assert.deepEqual({ ...(await directory.userFlags('nobody')) }, NO_FLAGS)
      await directory.removeChannel(unknown)
      await directory.removeMembers(unknown, ['ann'])
      assert.equal(await directory.channel(unknown), undefined)
    },
  ],
  [
    'changeCount, where there is one, grows with every change',
    async (directory) => {
      const changes: readonly (() => unknown)[] = [
        () => directory.putChannel(infoOf(ROOM)),
        () => directory.putMembers(ROOM, [{ uid: 'ann', role: MemberRole.Member }]),
        () => directory.addToList(ROOM, 'deny', ['ann']),
        () => directory.removeFromList(ROOM, 'deny', ['ann']),
        () => directory.removeMembers(ROOM, ['ann']),
        () => directory.removeChannel(ROOM),
        () => directory.setUserFlags('ann', { banned: true }),
      ]
      if (directory.changeCount === undefined) return
      for (const [index, change] of changes.entries()) {
        const before = directory.changeCount()
        const changed = change()
        assert.ok(directory.changeCount() > before, `change ${index} has begun`)
        await changed
        await directory.channel(ROOM)
        assert.ok(directory.changeCount() > before, `change ${index}`)
      }
      assert.equal(directory.changeCount(), directory.changeCount())
    },
  ],
  [
    'a channel is what was put last',
    async (directory) => {
      for (const info of [infoOf(ROOM), infoOf(ROOM, { ban: true }), infoOf(ROOM, { disband: true }), infoOf(ROOM)]) {
        await directory.putChannel(info)
        await directory.putChannel(info)
        assert.deepEqual(await infoIn(directory, ROOM), info)
      }
    },
  ],
  [
    'putChannel leaves members and lists as they are',
    async (directory) => {
      await directory.putMembers(ROOM, [{ uid: 'ann', role: MemberRole.Owner }])
      await directory.addToList(ROOM, 'deny', ['bob'])
      await directory.putChannel(infoOf(ROOM, { ban: true }))
      assert.equal((await directory.member(ROOM, 'ann'))?.role, MemberRole.Owner)
      assert.equal(await directory.isListed(ROOM, 'deny', 'bob'), true)
    },
  ],
  [
    'removeChannel removes info, members and lists of that channel alone; made again it has none of them',
    async (directory) => {
      const other = channel(ROOM.channelID, ChannelType.Community)
      for (const key of [ROOM, other]) {
        await directory.putChannel(infoOf(key))
        await directory.putMembers(key, [{ uid: 'ann', role: MemberRole.Admin }])
        for (const list of LISTS) await directory.addToList(key, list, ['bob'])
      }
      await directory.removeChannel(ROOM)
      assert.equal(await directory.channel(ROOM), undefined)
      await directory.putChannel(infoOf(ROOM))
      assert.equal(await directory.member(ROOM, 'ann'), undefined)
      assert.deepEqual(await directory.members(ROOM), { items: [] })
      for (const list of LISTS) {
        assert.equal(await directory.isListed(ROOM, list, 'bob'), false)
        assert.equal(await directory.isListEmpty(ROOM, list), true)
        assert.equal(await directory.isListed(other, list, 'bob'), true)
      }
      assert.deepEqual((await directory.channelsOf('ann')).items.map((key) => ({ ...key })), [other])
      assert.deepEqual(await infoIn(directory, other), infoOf(other))
    },
  ],
  [
    'channels whatever their ids are kept apart',
    async (directory) => {
      for (const id of HOSTILE_IDS) await directory.putChannel(infoOf(channel(id), { ban: true }))
      for (const id of HOSTILE_IDS) {
        assert.deepEqual(await infoIn(directory, channel(id)), infoOf(channel(id), { ban: true }))
        assert.equal(await directory.channel(channel(id, ChannelType.Community)), undefined)
        await directory.removeChannel(channel(id))
        assert.equal(await directory.channel(channel(id)), undefined)
      }
    },
  ],
  [
    'what the caller does to its objects afterwards does not reach the directory',
    async (directory) => {
      const info = infoOf({ ...ROOM })
      const members = [{ uid: 'ann', role: MemberRole.Member as MemberRole }]
      const uids = ['bob']
      await directory.putChannel(info)
      await directory.putMembers(ROOM, members)
      await directory.addToList(ROOM, 'deny', uids)
      Object.assign(info, { ban: true, channelID: 'elsewhere' })
      Object.assign(members[0] ?? {}, { uid: 'mallory', role: MemberRole.Owner })
      uids[0] = 'cleo'
      assert.deepEqual(await infoIn(directory, ROOM), infoOf(ROOM))
      assert.deepEqual({ ...(await directory.member(ROOM, 'ann')) }, { uid: 'ann', role: MemberRole.Member })
      assert.deepEqual((await directory.listed(ROOM, 'deny')).items, ['bob'])
    },
  ],
]

const memberScenarios: readonly Scenario<ChannelDirectory>[] = [
  [
    'members are added, change their role and leave; saying it twice changes nothing',
    async (directory) => {
      const ann = { uid: 'ann', role: MemberRole.Owner }
      const bob = { uid: 'bob', role: MemberRole.Member }
      await directory.putMembers(ROOM, [ann, bob])
      await directory.putMembers(ROOM, [ann])
      assert.deepEqual(await membersOf(directory, ROOM), [ann, bob])
      const promoted = { uid: 'bob', role: MemberRole.Admin }
      await directory.putMembers(ROOM, [promoted])
      assert.deepEqual({ ...(await directory.member(ROOM, 'bob')) }, promoted)
      assert.deepEqual(await membersOf(directory, ROOM), [ann, promoted])
      await directory.removeMembers(ROOM, ['bob', 'nobody'])
      await directory.removeMembers(ROOM, ['bob'])
      assert.equal(await directory.member(ROOM, 'bob'), undefined)
      assert.deepEqual(await membersOf(directory, ROOM), [ann])
    },
  ],
  [
    'one uid twice in a call is one member, with the role said last',
    async (directory) => {
      await directory.putMembers(ROOM, [{ uid: 'ann', role: MemberRole.Member }, { uid: 'ann', role: MemberRole.Admin }])
      assert.deepEqual(await membersOf(directory, ROOM), [{ uid: 'ann', role: MemberRole.Admin }])
      await directory.removeMembers(ROOM, ['ann', 'ann'])
      assert.deepEqual(await membersOf(directory, ROOM), [])
    },
  ],
  [
    'a channel that has members need not exist, and they do not bring it into being',
    async (directory) => {
      await directory.putMembers(ROOM, [{ uid: 'ann', role: MemberRole.Member }])
      assert.equal(await directory.channel(ROOM), undefined)
      assert.equal((await directory.member(ROOM, 'ann'))?.uid, 'ann')
    },
  ],
  [
    'channelsOf lists exactly the channels a user is a member of',
    async (directory) => {
      const keys = [channel('a'), channel('b'), channel('a', ChannelType.Community)]
      for (const key of keys) await directory.putMembers(key, [{ uid: 'ann', role: MemberRole.Member }])
      await directory.putMembers(channel('c'), [{ uid: 'bob', role: MemberRole.Member }])
      await directory.putMembers(channel('b'), [{ uid: 'ann', role: MemberRole.Admin }])
      assert.deepEqual(sorted(await directory.channelsOf('ann')), sorted({ items: keys }))
      await directory.removeMembers(channel('a'), ['ann'])
      await directory.removeChannel(channel('b'))
      assert.deepEqual(sorted(await directory.channelsOf('ann')), sorted({ items: keys.slice(2) }))
    },
  ],
  [
    'uids whatever their text are kept apart, as members, on lists and as users',
    async (directory) => {
      await directory.putMembers(ROOM, HOSTILE_IDS.map((uid) => ({ uid, role: MemberRole.Admin })))
      await directory.addToList(ROOM, 'allow', HOSTILE_IDS)
      for (const uid of HOSTILE_IDS) await directory.setUserFlags(uid, { banned: true })
      const found = (await membersOf(directory, ROOM)).map((member) => member.uid)
      assert.deepEqual(found.sort(), [...HOSTILE_IDS].sort())
      for (const uid of HOSTILE_IDS) {
        assert.deepEqual({ ...(await directory.member(ROOM, uid)) }, { uid, role: MemberRole.Admin })
        assert.deepEqual((await directory.channelsOf(uid)).items.map((key) => ({ ...key })), [ROOM])
        assert.equal(await directory.isListed(ROOM, 'allow', uid), true)
        assert.equal(await directory.isListed(ROOM, 'allow', `${uid}!`), false)
        assert.deepEqual({ ...(await directory.userFlags(uid)) }, { banned: true, sendBanned: false })
      }
      assert.deepEqual({ ...(await directory.userFlags('toString')) }, NO_FLAGS)
    },
  ],
  [
    'writes that overlap are all there once they have resolved',
    async (directory) => {
      const writes = Array.from({ length: 50 }, (_, i) => {
        const members = [`u${i}`, 'all'].map((uid) => ({ uid, role: MemberRole.Member }))
        return started(() => directory.putMembers(ROOM, members))
      })
      await Promise.all(writes)
      assert.equal((await membersOf(directory, ROOM)).length, 51)
      assert.equal((await directory.channelsOf('u49')).items.length, 1)
    },
  ],
]

const survivalScenarios: readonly DurableScenario<ChannelDirectory>[] = [
  {
    name: 'after a restart everything that resolved is there, and what was removed is not',
    before: async (directory) => {
      await directory.putChannel(infoOf(ROOM, { ban: true }))
      await directory.putMembers(ROOM, ['ann', 'bob'].map((uid) => ({ uid, role: MemberRole.Admin })))
      await directory.addToList(ROOM, 'deny', ['cleo', 'dan'])
      await directory.setUserFlags('eve', { banned: true })
      await directory.removeMembers(ROOM, ['bob'])
      await directory.removeFromList(ROOM, 'deny', ['dan'])
      await directory.putMembers(channel('gone'), [{ uid: 'ann', role: MemberRole.Member }])
      await directory.removeChannel(channel('gone'))
    },
    after: async (directory) => {
      assert.deepEqual(await infoIn(directory, ROOM), infoOf(ROOM, { ban: true }))
      assert.deepEqual(await membersOf(directory, ROOM), [{ uid: 'ann', role: MemberRole.Admin }])
      assert.deepEqual((await directory.listed(ROOM, 'deny')).items, ['cleo'])
      assert.deepEqual({ ...(await directory.userFlags('eve')) }, { banned: true, sendBanned: false })
      assert.deepEqual((await directory.channelsOf('ann')).items.map((key) => ({ ...key })), [ROOM])
      assert.deepEqual(await directory.channelsOf('bob'), { items: [] })
    },
  },
]

/** All members on one page, by uid. */
async function membersOf(directory: ChannelDirectory, key: ChannelKey): Promise<{ uid: string; role: MemberRole }[]> {
  const { items, cursor } = await directory.members(key, { limit: 10_000 })
  assert.equal(cursor, undefined, 'one page holds them all')
  return items.map((member) => ({ ...member })).sort((a, b) => (a.uid < b.uid ? -1 : 1))
}

function sorted({ items }: { readonly items: readonly ChannelKey[] }): string[] {
  return items.map((key) => `${key.channelType}:${key.channelID}`).sort()
}
