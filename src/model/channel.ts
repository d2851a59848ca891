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

/** Ends the id of the channel that holds another one's commands. Never seen on the wire. Source: wkproto, command messages. */
const COMMAND_SUFFIX = '____cmd'

/** The channel a command channel belongs to; any other channel is its own. Members, lists and flags hang on this one. */
export function sourceKey(key: ChannelKey): ChannelKey {
  if (!key.channelID.endsWith(COMMAND_SUFFIX)) return key
  return { channelID: withoutCommandSuffix(key.channelID), channelType: key.channelType }
}

/** The channel for commands about this one; of a command channel it is itself. */
export function commandKey(key: ChannelKey): ChannelKey {
  if (key.channelID.endsWith(COMMAND_SUFFIX)) return key
  return { channelID: key.channelID + COMMAND_SUFFIX, channelType: key.channelType }
}

/** Is it the channel of another one's commands? */
export function isCommandKey(key: ChannelKey): boolean {
  return key.channelID.endsWith(COMMAND_SUFFIX)
}

/** The community of a topic `<community>@<topic>`; undefined for every other channel. */
export function communityKey({ channelID, channelType }: ChannelKey): ChannelKey | undefined {
  const at = channelType === ChannelType.CommunityTopic ? channelID.indexOf('@') : -1
  return at > 0 ? { channelID: channelID.slice(0, at), channelType: ChannelType.Community } : undefined
}

function withoutCommandSuffix(channelID: string): string {
  return channelID.endsWith(COMMAND_SUFFIX) ? channelID.slice(0, -COMMAND_SUFFIX.length) : channelID
}

/** Both uids of a canonical person channel id, or undefined when the text is not one; that of a command channel is none. */
export function personChannelUIDs(channelID: string): readonly [string, string] | undefined {
  if (channelID.endsWith(COMMAND_SUFFIX)) return undefined
  const at = channelID.indexOf('@')
  if (at <= 0 || at === channelID.length - 1 || channelID.includes('@', at + 1)) return undefined
  return [channelID.slice(0, at), channelID.slice(at + 1)]
}

/** The channel id as `uid` sees it: the peer's uid in a person channel, and a command channel as the one it belongs to. */
export function channelIDSeenBy(uid: string, key: ChannelKey): string {
  const channelID = withoutCommandSuffix(key.channelID)
  if (key.channelType !== ChannelType.Person) return channelID
  const uids = personChannelUIDs(channelID)
  if (uids === undefined) return channelID
  return uids[0] === uid ? uids[1] : uids[0]
}

/** The canonical key of a channel that `uid` names as a client does: a person channel by the peer's uid. */
export function canonicalKey(uid: string, channelID: string, channelType: number): ChannelKey {
  if (channelType !== ChannelType.Person) return { channelID, channelType }
  const peer = withoutCommandSuffix(channelID)
  return { channelID: personChannelID(uid, peer) + channelID.slice(peer.length), channelType }
}

/**
 * A uid that may connect, and the only kind that can be half of a person channel: 1 to 32767 bytes of well-formed text,
 * not blank, without `@`, `#`, `&` and control characters, and not ending like a command channel. Source: wkproto, CONNECT;
 * `@` would forge person channels, the ending would name somebody else's commands.
 */
export function isValidUID(uid: string): boolean {
  return uid.trim() !== '' && !uid.endsWith(COMMAND_SUFFIX) && !/[@#&\u0000-\u001f\u007f]/.test(uid) && isWellFormedID(uid)
}

/**
 * A channel id as a client names it: of a person channel a uid, elsewhere any `isValidChannelID`, perhaps of its commands. Commands
 * of commands are nobody's: what is said about the channel itself (its flags and lists) would not be asked for them.
 */
export function isValidWireID(channelID: string, channelType: number): boolean {
  const source = withoutCommandSuffix(channelID)
  if (channelType === ChannelType.Person) return isValidUID(source)
  return isValidChannelID(source) && !source.endsWith(COMMAND_SUFFIX)
}

/** A channel id a client may name in a channel that is not a person's: not blank, without `#`, `&` and control characters. */
export function isValidChannelID(channelID: string): boolean {
  return channelID.trim() !== '' && !/[#&\u0000-\u001f\u007f]/.test(channelID) && isWellFormedID(channelID)
}

function isWellFormedID(id: string): boolean {
  // A lone surrogate would be stored as one text and sent as another.
  return id.length <= 32_767 && Buffer.byteLength(id) <= 32_767 && id.isWellFormed()
}
