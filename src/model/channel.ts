import { crc32 } from 'node:zlib'

/** Kinds of channel (wkproto 5, SEND.channelType). 3 is deprecated by the protocol, 9 keeps no conversations. */
export const ChannelType = {
  Person: 1,
  Group: 2,
  CustomerService: 3,
  Community: 4,
  CommunityTopic: 5,
  Info: 6,
  Data: 7,
  Temp: 8,
  Live: 9,
  Visitors: 10,
  Agent: 11,
  AgentGroup: 12,
} as const
export type ChannelType = (typeof ChannelType)[keyof typeof ChannelType]

/**
 * One channel. Inside the engine a person channel carries the canonical id of the pair (`personChannelID`); on the wire
 * and towards a user it is the peer's uid.
 */
export interface ChannelKey {
  readonly channelID: string
  readonly channelType: number
}

/** Who may speak in a group: every member, admins and the owner, or the owner alone. */
export const CHANNEL_MODES = ['normal', 'muted', 'announcement'] as const
export type ChannelMode = (typeof CHANNEL_MODES)[number]

/** What a channel may be told beyond its members. What is absent is false, and the mode 'normal'. */
export interface ChannelFlags {
  /** closed: nobody but system users may send (19) */
  readonly ban?: boolean
  /** the channel is over: nobody may send, system users included (24) */
  readonly disband?: boolean
  /** read only: nobody but system users may send (25) */
  readonly sendBan?: boolean
  /** of a person's own channel, (uid, person): whoever is not on the allow list may write all the same */
  readonly allowStranger?: boolean
  readonly mode?: ChannelMode
}

/** What the engine knows of a channel beyond its members. */
export interface ChannelInfo extends ChannelKey, ChannelFlags {}

/** Who may do more in a group: see `ChannelMode`. */
export const MemberRole = { Member: 0, Admin: 1, Owner: 2 } as const
export type MemberRole = (typeof MemberRole)[keyof typeof MemberRole]

export interface Member {
  readonly uid: string
  readonly role: MemberRole
  /** may receive, may not send until then (25); milliseconds since 1970, absent for a member who is not muted */
  readonly mutedUntilMs?: number
}

/** Standing of a user in the whole engine, not in one channel. */
export interface UserFlags {
  /** may not connect */
  readonly banned: boolean
  /** may connect and receive, may not send */
  readonly sendBanned: boolean
  /** no check but "the channel is disbanded" stops them, and nobody can keep them from being written to; absent when false */
  readonly system?: boolean
}

/** One page of a listing. `cursor` is opaque; it is absent on the last page. */
export interface Page<T> {
  readonly items: readonly T[]
  readonly cursor?: string
}

/** The info with every flag named. */
export function channelInfo(key: ChannelKey, flags: ChannelFlags = {}): Required<ChannelInfo> {
  const { channelID, channelType } = key
  const { ban = false, disband = false, sendBan = false, allowStranger = false, mode = 'normal' } = flags
  return { channelID, channelType, ban, disband, sendBan, allowStranger, mode }
}

/** The string that stands for a channel in maps and queues: `<type>:<id>`. Types are digits, so no id can forge another. */
export function channelKeyString(key: ChannelKey): string {
  return `${key.channelType}:${key.channelID}`
}

/** The channel of a `channelKeyString`. */
export function channelKeyOf(text: string): ChannelKey {
  const colon = text.indexOf(':')
  return { channelID: text.slice(colon + 1), channelType: Number(text.slice(0, colon)) }
}

/** Is a channel of this type something that is listed, counted as unread and replayed? Data, temp and live channels are not. */
export function keepsConversations(channelType: number): boolean {
  return channelType !== ChannelType.Data && channelType !== ChannelType.Temp && channelType !== ChannelType.Live
}

/**
 * The one id both ends of a person channel share: the two uids joined by `@`, the one with the larger CRC-32 first, equal
 * CRCs ordered by bytes. Order of the arguments does not matter.
 * Source: wkproto, person channels; the tie rule is that of the reference server's third version (`docs/decisions/0005`).
 */
export function personChannelID(a: string, b: string): string {
  const hashA = crc32(a)
  const hashB = crc32(b)
  if (hashA > hashB) return `${a}@${b}`
  if (hashA < hashB) return `${b}@${a}`
  return Buffer.compare(Buffer.from(a), Buffer.from(b)) >= 0 ? `${a}@${b}` : `${b}@${a}`
}

/** Both uids of a canonical person channel id, or undefined when the text is not one. */
export function personChannelUIDs(channelID: string): readonly [string, string] | undefined {
  const at = channelID.indexOf('@')
  if (at <= 0 || at === channelID.length - 1 || channelID.includes('@', at + 1)) return undefined
  return [channelID.slice(0, at), channelID.slice(at + 1)]
}

/** The channel id as `uid` sees it: the peer's uid in a person channel, otherwise unchanged. */
export function channelIDSeenBy(uid: string, key: ChannelKey): string {
  if (key.channelType !== ChannelType.Person) return key.channelID
  const uids = personChannelUIDs(key.channelID)
  if (uids === undefined) return key.channelID
  return uids[0] === uid ? uids[1] : uids[0]
}

/** The canonical key of a channel that `uid` names as a client does: a person channel by the peer's uid. */
export function canonicalKey(uid: string, channelID: string, channelType: number): ChannelKey {
  return { channelID: channelType === ChannelType.Person ? personChannelID(uid, channelID) : channelID, channelType }
}

/**
 * A uid that may connect, and the only kind that can be half of a person channel: 1 to 32767 bytes of well-formed text,
 * not blank, without `@`, `#`, `&` and control characters. Source: wkproto, CONNECT; `@` would forge person channels.
 */
export function isValidUID(uid: string): boolean {
  return uid.trim() !== '' && !/[@#&\u0000-\u001f\u007f]/.test(uid) && isWellFormedID(uid)
}

/** A channel id a client may name in a channel that is not a person's: not blank, without `#`, `&` and control characters. */
export function isValidChannelID(channelID: string): boolean {
  return channelID.trim() !== '' && !/[#&\u0000-\u001f\u007f]/.test(channelID) && isWellFormedID(channelID)
}

function isWellFormedID(id: string): boolean {
  // A lone surrogate would be stored as one text and sent as another.
  return id.length <= 32_767 && Buffer.byteLength(id) <= 32_767 && id.isWellFormed()
}
