import type { ChannelRef, Session } from '../../wire.ts'
import type { ChatMessage } from './store.ts'

const SESSION = 'imengine-chat.session'
const OUTBOX = 'imengine-chat.outbox'
const KEYS = 'imengine-chat.keys'
const NOTICE = 'imengine-chat.notice'
const MAX_OUTBOX_COUNT = 100

/** Who this tab is: a reload stays signed in, another tab can be somebody else. */
export function loadSession(): Session | undefined {
  return read<Session>(sessionStorage, SESSION)
}

export function saveSession(session: Session): void {
  write(sessionStorage, SESSION, session)
  write(localStorage, KEYS, { ...loadKeys(), [keyOf(session.name)]: session.token })
}

/** The end of a sign-in, whoever ended it. The page loads again, because the SDK keeps what it knows as long as it lives. */
export function endSession(notice?: Notice): void {
  const session = loadSession()
  sessionStorage.removeItem(SESSION)
  sessionStorage.removeItem(OUTBOX)
  if (session !== undefined) {
    const { [keyOf(session.name)]: _forgotten, ...rest } = loadKeys()
    write(localStorage, KEYS, rest)
  }
  if (notice !== undefined) write(sessionStorage, NOTICE, notice)
  location.replace('/')
}

/** What to say above the next sign-in. */
export interface Notice {
  readonly name: string
  readonly text: string
}

export function takeNotice(): Notice | undefined {
  const notice = read<Notice>(sessionStorage, NOTICE)
  sessionStorage.removeItem(NOTICE)
  return notice
}

/** The token this browser was given for a name, so that closing the tab does not lose the name. */
export function knownToken(name: string): string | undefined {
  const keys = loadKeys()
  return Object.hasOwn(keys, keyOf(name)) ? keys[keyOf(name)] : undefined
}

export interface Unsent {
  readonly channel: ChannelRef
  readonly clientMsgNo: string
  readonly text: string
  readonly timestampMs: number
  readonly failedWith: number | undefined
}

/** What was typed and not delivered survives a reload; the newest are kept when there is too much. */
export function saveOutbox(undelivered: readonly { channel: ChannelRef; message: ChatMessage }[]): void {
  const unsent = undelivered.slice(-MAX_OUTBOX_COUNT).map(({ channel, message }): Unsent => {
    const { channelID, channelType } = channel
    const { clientMsgNo, text, timestampMs, delivery, reasonCode } = message
    return { channel: { channelID, channelType }, clientMsgNo, text, timestampMs, failedWith: delivery === 'failed' ? reasonCode : undefined }
  })
  if (unsent.length === 0) sessionStorage.removeItem(OUTBOX)
  else write(sessionStorage, OUTBOX, unsent)
}

export function loadOutbox(): readonly Unsent[] {
  return read<Unsent[]>(sessionStorage, OUTBOX) ?? []
}

function loadKeys(): Record<string, string> {
  return read<Record<string, string>>(localStorage, KEYS) ?? {}
}

function keyOf(name: string): string {
  return name.normalize('NFKC').replace(/\s+/gu, ' ').trim().toLowerCase()
}

function read<T>(storage: Storage, key: string): T | undefined {
  const text = storage.getItem(key)
  if (text === null) return undefined
  try {
    return JSON.parse(text) as T
  } catch {
    return undefined // written by something else: as good as nothing
  }
}

function write(storage: Storage, key: string, value: unknown): void {
  try {
    storage.setItem(key, JSON.stringify(value))
  } catch {
    // Storage is full or switched off. The page works without; only a reload will ask again.
  }
}
