/**
 * The values of the channel directory: infos, members and flags of users. What was written by an earlier version stays
 * readable: an info of version 1 has one byte of flags and no mode, a member who is not muted has one byte.
 */
import { MAX_TIME_MS } from '../../contracts/message-record.ts'
import { badOption, IMError, integerBetween } from '../../errors.ts'
import { CHANNEL_MODES, type ChannelInfo, type ChannelKey, type Member, type MemberRole, type UserFlags } from '../../model/channel.ts'

const INFO_VERSION = 2
const FLAGS_ONLY_VERSION = 1
const BAN = 1
const DISBAND = 2
const SEND_BAN = 4
const ALLOW_STRANGER = 8

const BANNED = 1
const SEND_BANNED = 2
const SYSTEM = 4

/** Behind the role of a member who is muted. */
const MUTE_BYTES = 6

/** Values are shared: they are kept in memory in numbers. */
const bytes = Array.from({ length: 8 }, (_, value) => Buffer.alloc(1, value))
const ROLES = bytes.slice(0, 3)
const infos = CHANNEL_MODES.map((_, mode) => Array.from({ length: 16 }, (_none, flags) => bytesOf(INFO_VERSION, flags, mode)))

/** @throws TypeError for a mode that there is not */
export function encodeInfo({ ban, disband, sendBan, allowStranger, mode = 'normal' }: ChannelInfo): Buffer {
  const flags = (ban ? BAN : 0) | (disband ? DISBAND : 0) | (sendBan ? SEND_BAN : 0) | (allowStranger ? ALLOW_STRANGER : 0)
  const ofMode = infos[CHANNEL_MODES.indexOf(mode)] ?? badOption('mode', CHANNEL_MODES.map((known) => `'${known}'`).join(' or '), mode)
  return ofMode[flags]!
}

/** @throws IM_STORE_FORMAT */
export function decodeInfo(key: ChannelKey, info: Buffer): Required<ChannelInfo> {
  const [version, flags = 0, modeNumber = 0] = info
  const mode = CHANNEL_MODES[version === FLAGS_ONLY_VERSION ? 0 : modeNumber]
  if ((version !== INFO_VERSION && version !== FLAGS_ONLY_VERSION) || mode === undefined) {
    throw new IMError('IM_STORE_FORMAT', { detail: `a channel's info of version ${version}, mode ${modeNumber}`, context: key })
  }
  const { channelID, channelType } = key
  const [ban, disband, sendBan, allowStranger] = [has(flags, BAN), has(flags, DISBAND), has(flags, SEND_BAN), has(flags, ALLOW_STRANGER)]
  return { channelID, channelType, ban, disband, sendBan, allowStranger, mode }
}

/** A mute beyond the year 10889 ends then. @throws TypeError for a role or a time that there is not */
export function encodeMember({ role, mutedUntilMs }: Member): Buffer {
  const roleByte = ROLES[role] ?? badOption('role', 'a member role', role)
  if (mutedUntilMs === undefined) return roleByte
  const untilMs = integerBetween('mutedUntilMs', mutedUntilMs > MAX_TIME_MS ? MAX_TIME_MS : mutedUntilMs, 0, MAX_TIME_MS)
  const row = Buffer.alloc(1 + MUTE_BYTES, roleByte) // not from the pool, which would stay with it
  row.writeUIntBE(untilMs, 1, MUTE_BYTES)
  return row
}

export function decodeMember(uid: string, row: Buffer): Member {
  const role = row[0] as MemberRole
  return row.length > 1 ? { uid, role, mutedUntilMs: row.readUIntBE(1, MUTE_BYTES) } : { uid, role }
}

/** @returns undefined for a user about whom there is nothing to say */
export function encodeFlags({ banned, sendBanned, system }: UserFlags): Buffer | undefined {
  const flags = (banned ? BANNED : 0) | (sendBanned ? SEND_BANNED : 0) | (system ? SYSTEM : 0)
  return flags === 0 ? undefined : bytes[flags]
}

export function decodeFlags(row: Buffer | undefined): UserFlags {
  const flags = row?.[0] ?? 0
  const known = { banned: has(flags, BANNED), sendBanned: has(flags, SEND_BANNED) }
  return has(flags, SYSTEM) ? { ...known, system: true } : known
}

function has(flags: number, flag: number): boolean {
  return (flags & flag) !== 0
}

function bytesOf(...values: readonly number[]): Buffer {
  const row = Buffer.alloc(values.length)
  row.set(values)
  return row
}
