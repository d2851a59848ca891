/** What the server and the page say to each other over HTTP. Channels are named as the user sees them: a person by uid. */

/** What the page may know of a user. */
export interface Person {
  readonly uid: string
  readonly name: string
  readonly online: boolean
  /** when the last connection ended; null while online and before the first one */
  readonly lastSeenMs: number | null
  /** signed out for good: still named in what was said, not in the list of people */
  readonly left: boolean
}

/** POST /api/login */
export interface LoginRequest {
  readonly name: string
  /** proves that a taken name is the caller's own */
  readonly token?: string
}

export interface Session {
  readonly uid: string
  readonly name: string
  readonly token: string
}

/** Every answer that is not 2xx. `message` is for people. */
export interface Failure {
  readonly error: string
  readonly message: string
}

export interface ChannelRef {
  readonly channelID: string
  readonly channelType: number
}

export interface StoredMessage {
  readonly messageID: string
  readonly messageSeq: number
  readonly clientMsgNo: string
  readonly fromUID: string
  readonly timestampSec: number
  /** the payload as the SDK's contents read it: `{ type: 1, content: '…' }` */
  readonly content: { readonly type: number; readonly [field: string]: unknown }
  /** 0 as it was sent, and one more with each change */
  readonly version: number
  /** taken back by its sender: there is no content any more */
  readonly recalled: boolean
}

/** POST /api/recall, for one's own messages */
export interface RecallRequest {
  readonly messageID: string
}

/** GET /api/history?channelID&channelType and one of `before`, `after` (exclusive seqs); oldest first */
export interface History {
  readonly messages: readonly StoredMessage[]
}

/** GET /api/conversations */
export interface ConversationSummary extends ChannelRef {
  readonly lastSeq: number
  readonly readSeq: number
  /** not always the difference of the two: a recalled message has a number and does not count */
  readonly unread: number
  readonly last: StoredMessage | null
}

/** GET /api/events, a stream: `people` once with everybody, then `person` for each change, and `revised` for messages */
export interface ServerEvents {
  readonly people: readonly Person[]
  readonly person: Person
  readonly revised: { readonly channel: ChannelRef; readonly message: StoredMessage }
}

export const LOBBY: ChannelRef & { readonly name: string } = { channelID: 'lobby', channelType: 2, name: 'Lobby' }
/** Who speaks for the server itself. */
export const SYSTEM_UID = 'system'
export const MAX_TEXT_CHARS = 4000
export const MAX_NAME_CHARS = 32
