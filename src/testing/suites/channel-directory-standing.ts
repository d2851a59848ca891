import assert from 'node:assert/strict'
import type { ChannelDirectory } from '../../contracts/channel-directory.ts'
import { channelInfo, ChannelType, CHANNEL_MODES, MemberRole, type ChannelFlags, type ChannelInfo, type ChannelKey } from '../../model/channel.ts'
import type { DurableScenario, Scenario } from './contract-case.ts'
import { channel, HOSTILE_IDS, ROOM } from './samples.ts'

const NO_FLAGS = { banned: false, sendBanned: false }

/** What the directory says of a channel that is there, with every flag named: what it leaves out is false. */
export async function infoIn(directory: ChannelDirectory, key: ChannelKey): Promise<Required<ChannelInfo>> {
  const found = await directory.channel({ ...key })
  assert.ok(found !== undefined, `channel ${key.channelID.slice(0, 40)} is missing`)
  return channelInfo(found, found)
}

async function assertSystemUIDs(directory: ChannelDirectory, expected: readonly string[]): Promise<void> {
  if (directory.systemUIDs === undefined) return
  const { items, cursor } = await directory.systemUIDs({ limit: 10_000 })
  assert.equal(cursor, undefined, 'one page holds them all')
  assert.deepEqual([...items].sort(), [...expected].sort())
}

/** Flags and modes of channels, mutes of members, and system users. */
export const standingScenarios: readonly Scenario<ChannelDirectory>[] = [
  [
    'every flag and every mode of a channel is kept, alone and with all others',
    async (directory) => {
      const flags: readonly ChannelFlags[] = [
        { ban: true },
        { disband: true },
        { sendBan: true },
        { allowStranger: true },
        ...CHANNEL_MODES.map((mode) => ({ mode })),
        ...CHANNEL_MODES.map((mode) => ({ ban: true, disband: true, sendBan: true, allowStranger: true, mode })),
      ]
      const keys = flags.map((_, i) => channel(`c${i}`, i % 2 === 0 ? ChannelType.Group : ChannelType.Person))
      for (const [i, key] of keys.entries()) await directory.putChannel(channelInfo(key, flags[i]))
      for (const [i, key] of keys.entries()) assert.deepEqual(await infoIn(directory, key), channelInfo(key, flags[i]))
    },
  ],
  [
    'putChannel replaces all flags and the mode: what it does not name is false, and normal',
    async (directory) => {
      const all = { ban: true, disband: true, sendBan: true, allowStranger: true, mode: 'announcement' } as const
      await directory.putChannel({ ...ROOM, ...all })
      await directory.putChannel({ ...ROOM, sendBan: true })
      assert.deepEqual(await infoIn(directory, ROOM), channelInfo(ROOM, { sendBan: true }))
      await directory.putChannel({ ...ROOM, mode: 'muted' })
      assert.deepEqual(await infoIn(directory, ROOM), channelInfo(ROOM, { mode: 'muted' }))
      await directory.putChannel({ ...ROOM })
      assert.deepEqual(await infoIn(directory, ROOM), channelInfo(ROOM))
    },
  ],
  [
    'a member is muted until the time said last, and not at all when none is said',
    async (directory) => {
      const muted = (mutedUntilMs: number) => ({ uid: 'ann', role: MemberRole.Admin, mutedUntilMs })
      const bob = { uid: 'bob', role: MemberRole.Member }
      for (const mutedUntilMs of [1, 1_700_000_000_123, 253_402_300_799_999]) {
        await directory.putMembers(ROOM, [bob, muted(mutedUntilMs)])
        assert.deepEqual({ ...(await directory.member(ROOM, 'ann')) }, muted(mutedUntilMs))
        assert.deepEqual({ ...(await directory.member(ROOM, 'bob')) }, bob)
        const { items } = await directory.members(ROOM)
        const byUID = items.map((member) => ({ ...member })).sort((a, b) => (a.uid < b.uid ? -1 : 1))
        assert.deepEqual(byUID, [muted(mutedUntilMs), bob])
      }
      const ann = { uid: 'ann', role: MemberRole.Admin }
      await directory.putMembers(ROOM, [ann])
      assert.deepEqual({ ...(await directory.member(ROOM, 'ann')) }, ann)
      assert.equal((await directory.channelsOf('ann')).items.length, 1)
    },
  ],
  [
    'a mute concerns one channel, and ends with the membership',
    async (directory) => {
      const other = channel('other')
      for (const key of [ROOM, other]) await directory.putMembers(key, [{ uid: 'ann', role: MemberRole.Member }])
      await directory.putMembers(ROOM, [{ uid: 'ann', role: MemberRole.Member, mutedUntilMs: 1_700_000_000_000 }])
      assert.deepEqual({ ...(await directory.member(other, 'ann')) }, { uid: 'ann', role: MemberRole.Member })
      await directory.removeMembers(ROOM, ['ann'])
      assert.equal(await directory.member(ROOM, 'ann'), undefined)
      await directory.putMembers(ROOM, [{ uid: 'ann', role: MemberRole.Member }])
      assert.deepEqual({ ...(await directory.member(ROOM, 'ann')) }, { uid: 'ann', role: MemberRole.Member })
    },
  ],
  [
    'the flag system is set and taken back by itself, and is absent when false',
    async (directory) => {
      const flags = async (uid: string): Promise<unknown> => ({ ...(await directory.userFlags(uid)) })
      await directory.setUserFlags('bot', { system: true })
      assert.deepEqual(await flags('bot'), { ...NO_FLAGS, system: true })
      await directory.setUserFlags('bot', { sendBanned: true })
      assert.deepEqual(await flags('bot'), { banned: false, sendBanned: true, system: true })
      await directory.setUserFlags('bot', {})
      await directory.setUserFlags('bot', { sendBanned: false })
      assert.deepEqual(await flags('bot'), { ...NO_FLAGS, system: true })
      await directory.setUserFlags('bot', { banned: true, system: false })
      assert.deepEqual(await flags('bot'), { banned: true, sendBanned: false })
      await directory.setUserFlags('bot', { banned: false })
      await directory.setUserFlags('ann', { system: false })
      assert.deepEqual([await flags('bot'), await flags('ann')], [NO_FLAGS, NO_FLAGS])
    },
  ],
  [
    'systemUIDs lists exactly the users whose flag system is set, each once',
    async (directory) => {
      if (directory.systemUIDs === undefined) return
      assert.deepEqual(await directory.systemUIDs(), { items: [] })
      await directory.setUserFlags('ann', { banned: true, sendBanned: true })
      for (const uid of ['bot', 'clock', 'bot']) await directory.setUserFlags(uid, { system: true })
      await directory.setUserFlags('bot', { banned: true })
      await assertSystemUIDs(directory, ['bot', 'clock'])
      await directory.setUserFlags('bot', { system: false })
      await directory.setUserFlags('ann', { system: false })
      await assertSystemUIDs(directory, ['clock'])
      await directory.setUserFlags('clock', { system: false })
      assert.deepEqual(await directory.systemUIDs(), { items: [] })
    },
  ],
  [
    'system users whatever their uids are listed as they are, when all have been named at once',
    async (directory) => {
      await Promise.all(HOSTILE_IDS.map(async (uid) => directory.setUserFlags(uid, { system: true })))
      await assertSystemUIDs(directory, HOSTILE_IDS)
      for (const uid of HOSTILE_IDS) assert.equal((await directory.userFlags(uid)).system, true)
    },
  ],
]

export const standingSurvivalScenarios: readonly DurableScenario<ChannelDirectory>[] = [
  {
    name: 'after a restart flags and modes of channels, mutes and system users are as they were said last',
    before: async (directory) => {
      await directory.putChannel(channelInfo(ROOM, { ban: true, disband: true, mode: 'muted' }))
      await directory.putChannel(channelInfo(ROOM, { sendBan: true, allowStranger: true, mode: 'announcement' }))
      await directory.putChannel(channelInfo(channel('plain'), { mode: 'muted' }))
      await directory.putChannel(channelInfo(channel('plain')))
      await directory.putMembers(ROOM, ['ann', 'bob'].map((uid) => ({ uid, role: MemberRole.Admin, mutedUntilMs: 1_700_000_000_001 })))
      await directory.putMembers(ROOM, [{ uid: 'bob', role: MemberRole.Member }])
      for (const uid of ['bot', 'clock', 'former']) await directory.setUserFlags(uid, { system: true, banned: uid === 'clock' })
      await directory.setUserFlags('former', { system: false })
    },
    after: async (directory) => {
      assert.deepEqual(await infoIn(directory, ROOM), channelInfo(ROOM, { sendBan: true, allowStranger: true, mode: 'announcement' }))
      assert.deepEqual(await infoIn(directory, channel('plain')), channelInfo(channel('plain')))
      assert.deepEqual({ ...(await directory.member(ROOM, 'ann')) }, { uid: 'ann', role: MemberRole.Admin, mutedUntilMs: 1_700_000_000_001 })
      assert.deepEqual({ ...(await directory.member(ROOM, 'bob')) }, { uid: 'bob', role: MemberRole.Member })
      assert.deepEqual({ ...(await directory.userFlags('bot')) }, { ...NO_FLAGS, system: true })
      assert.deepEqual({ ...(await directory.userFlags('clock')) }, { banned: true, sendBanned: false, system: true })
      assert.deepEqual({ ...(await directory.userFlags('former')) }, NO_FLAGS)
      await assertSystemUIDs(directory, ['bot', 'clock'])
    },
  },
]
