import { LOBBY, type ChannelRef, type Person } from '../../wire.ts'

export type Delivery = 'sending' | 'sent' | 'failed' | 'received'

export interface ChatMessage {
  /** stable over the message's life: what the page's elements are keyed by */
  readonly key: string
  readonly clientMsgNo: string
  /** empty until the server has stored it */
  messageID: string
  /** place in the conversation, 1, 2, 3 …; 0 until the server has stored it */
  messageSeq: number
  readonly fromUID: string
  text: string
  timestampMs: number
  /** 0 as it was sent, and one more with each change */
  version: number
  recalled: boolean
  delivery: Delivery
  /** why, when failed */
  reasonCode: number
}

/** A message as the SDK hands it over, live or from the history. */
export type IncomingMessage = Omit<ChatMessage, 'key' | 'delivery' | 'reasonCode'> & { readonly channel: ChannelRef }

export interface Conversation extends ChannelRef {
  readonly id: string
  /** by seq; what has none yet stands at the end in the order it was typed */
  readonly messages: ChatMessage[]
  /** newest message known to exist, loaded or not */
  lastSeq: number
  /** everything up to here has been on the screen */
  readSeq: number
  /** of what came after `readSeq`, so many do not count: they were recalled */
  uncountedCount: number
  /** shown in the list while the messages themselves are not loaded */
  preview: ChatMessage | undefined
  history: 'unknown' | 'loading' | 'partial' | 'complete' | 'failed'
}

/** How the connection stands, in words the page can show. */
export type Link =
  | { readonly state: 'connecting' }
  | { readonly state: 'online' }
  | { readonly state: 'waiting'; readonly untilMs: number }
  | { readonly state: 'refused'; readonly reasonCode: number }
  | { readonly state: 'kicked' }

export function conversationID({ channelType, channelID }: ChannelRef): string {
  return `${channelType}:${channelID}`
}

/**
 * Everything the page shows, and the rules that keep it true: a message appears once however often it arrives, messages
 * stand in the order of their numbers, and only what was not read counts as unread. Knows nothing of the screen or the SDK.
 */
export class Store {
  readonly me: string
  readonly people = new Map<string, Person>()
  readonly conversations = new Map<string, Conversation>()
  link: Link = { state: 'connecting' }
  openID: string | undefined
  #listeners: (() => void)[] = []
  #scheduled = false

  constructor(me: string) {
    this.me = me
    this.conversation(LOBBY)
  }

  /** Called at most once per turn, after all changes of that turn. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  changed(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      for (const listener of this.#listeners) listener()
    })
  }

  /** The conversation in this channel, created when it is new. */
  conversation(channel: ChannelRef): Conversation {
    const id = conversationID(channel)
    let found = this.conversations.get(id)
    if (found === undefined) {
      const { channelID, channelType } = channel
      found = { id, channelID, channelType, messages: [], lastSeq: 0, readSeq: 0, uncountedCount: 0, preview: undefined, history: 'unknown' }
      this.conversations.set(id, found)
      this.changed()
    }
    return found
  }

  get open(): Conversation | undefined {
    return this.openID === undefined ? undefined : this.conversations.get(this.openID)
  }

  /**
   * Take in one message that came by itself: live, replayed at login, or delivered again.
   * @returns 'gap' when messages next to it are missing; 'older' when it was not taken, because it and what lies between
   *   come with the history when somebody scrolls there
   */
  receive(incoming: IncomingMessage): 'new' | 'known' | 'gap' | 'older' {
    const conversation = this.conversation(incoming.channel)
    const { messages, history } = conversation
    const first = firstStored(conversation)
    if (history !== 'unknown' && first !== undefined && incoming.messageSeq < first.messageSeq - 1) return 'older'
    const message = this.#take(conversation, incoming)
    if (message === undefined) return 'known'
    const index = messages.indexOf(message)
    const [before, after] = [messages[index - 1], messages[index + 1]]
    const follows = before === undefined || before.messageSeq === message.messageSeq - 1
    const isFollowed = after === undefined || after.messageSeq === 0 || after.messageSeq === message.messageSeq + 1
    return follows && isFollowed ? 'new' : 'gap'
  }

  /** Take in a page of history: messages that belong next to each other, oldest first. */
  addPage(conversation: Conversation, page: readonly IncomingMessage[]): void {
    for (const incoming of page) this.#take(conversation, incoming)
  }

  /** The newest page there is, the first of a history. What came by itself before stays when the two meet. */
  addNewestPage(conversation: Conversation, page: readonly IncomingMessage[]): void {
    const oldestSeq = page[0]?.messageSeq ?? 0
    const meets = conversation.messages.some(({ messageSeq }) => messageSeq === oldestSeq - 1)
    if (!meets) this.#drop(conversation, ({ messageSeq }) => messageSeq !== 0 && messageSeq < oldestSeq)
    this.addPage(conversation, page)
  }

  /** Forget what was loaded, to begin again at the newest page. What was typed and is not stored stays. */
  forgetHistory(conversation: Conversation): void {
    this.#drop(conversation, ({ messageSeq }) => messageSeq !== 0)
    conversation.history = 'unknown'
  }

  #drop({ messages }: Conversation, isDropped: (message: ChatMessage) => boolean): void {
    const kept = messages.filter((message) => !isDropped(message))
    if (kept.length === messages.length) return
    messages.splice(0, messages.length, ...kept)
    this.changed()
  }

  /** @returns the new message, undefined for one that is known */
  #take(conversation: Conversation, incoming: IncomingMessage): ChatMessage | undefined {
    const known = conversation.messages.find((message) => isSame(message, incoming, this.me))
    if (known !== undefined) {
      this.#place(conversation, known, incoming)
      this.#revise(known, incoming)
      return undefined
    }
    const mine = incoming.fromUID === this.me
    const { channel: _channel, ...fields } = incoming
    const message: ChatMessage = {
      ...fields,
      key: mine && incoming.clientMsgNo !== '' ? incoming.clientMsgNo : incoming.messageID,
      delivery: mine ? 'sent' : 'received',
      reasonCode: 0,
    }
    insert(conversation.messages, message)
    conversation.lastSeq = Math.max(conversation.lastSeq, message.messageSeq)
    // Whoever answers has read what was there.
    if (mine) this.markRead(conversation, message.messageSeq)
    this.changed()
    return message
  }

  /** A message has become another one, loaded or not. */
  revise(incoming: IncomingMessage): void {
    const conversation = this.conversation(incoming.channel)
    const { messages, preview, readSeq } = conversation
    const known = messages.find((message) => isSame(message, incoming, this.me))
    if (known?.recalled !== true && incoming.recalled && incoming.messageSeq > readSeq) conversation.uncountedCount++
    if (known !== undefined) this.#revise(known, incoming)
    if (preview?.messageID === incoming.messageID) this.#revise(preview, incoming)
  }

  /** What is older than what is shown changes nothing: a page of history may have been long on its way. */
  #revise(message: ChatMessage, { version, recalled, text }: IncomingMessage): void {
    if (version <= message.version) return
    message.version = version
    message.recalled = recalled
    message.text = text
    this.changed()
  }

  /** Show what was just typed, before the server has it. */
  addOwn(channel: ChannelRef, { clientMsgNo, text, timestampMs }: Pick<ChatMessage, 'clientMsgNo' | 'text' | 'timestampMs'>): ChatMessage {
    const message: ChatMessage = {
      key: clientMsgNo,
      clientMsgNo,
      messageID: '',
      messageSeq: 0,
      fromUID: this.me,
      text,
      timestampMs,
      version: 0,
      recalled: false,
      delivery: 'sending',
      reasonCode: 0,
    }
    this.conversation(channel).messages.push(message)
    this.changed()
    return message
  }

  /** The server's word on one of ours. */
  acknowledge(ack: { clientMsgNo: string; messageID: string; messageSeq: number; reasonCode: number }): void {
    const found = this.findOwn(ack.clientMsgNo)
    if (found === undefined || found.message.delivery === 'sent') return
    const { conversation, message } = found
    if (ack.reasonCode === 1) {
      this.#place(conversation, message, ack)
      this.markRead(conversation, ack.messageSeq)
    } else {
      message.delivery = 'failed'
      message.reasonCode = ack.reasonCode
    }
    this.changed()
  }

  markSending(clientMsgNo: string): void {
    const message = this.findOwn(clientMsgNo)?.message
    if (message === undefined) return
    message.delivery = 'sending'
    this.changed()
  }

  discard(clientMsgNo: string): void {
    const found = this.findOwn(clientMsgNo)
    if (found === undefined) return
    found.conversation.messages.splice(found.conversation.messages.indexOf(found.message), 1)
    this.changed()
  }

  findOwn(clientMsgNo: string): { conversation: Conversation; message: ChatMessage } | undefined {
    for (const conversation of this.conversations.values()) {
      const message = conversation.messages.find((one) => one.clientMsgNo === clientMsgNo && one.fromUID === this.me)
      if (message !== undefined) return { conversation, message }
    }
    return undefined
  }

  /** What was typed and has not arrived, to be kept over a reload. */
  undelivered(): { channel: ChannelRef; message: ChatMessage }[] {
    return [...this.conversations.values()].flatMap((conversation) =>
      conversation.messages
        .filter(({ delivery }) => delivery === 'sending' || delivery === 'failed')
        .map((message) => ({ channel: conversation, message })),
    )
  }

  markRead(conversation: Conversation, seq: number): void {
    if (seq <= conversation.readSeq) return
    conversation.readSeq = seq
    if (seq >= conversation.lastSeq) conversation.uncountedCount = 0
    this.changed()
  }

  /** How the server says a conversation stands. The page may be ahead of it in both numbers. */
  setStanding(conversation: Conversation, { lastSeq, readSeq, unread }: { lastSeq: number; readSeq: number; unread: number }): void {
    conversation.lastSeq = Math.max(conversation.lastSeq, lastSeq)
    conversation.uncountedCount = readSeq >= conversation.readSeq ? Math.max(0, lastSeq - readSeq - unread) : conversation.uncountedCount
    this.markRead(conversation, readSeq)
    this.changed()
  }

  unreadCount({ lastSeq, readSeq, uncountedCount }: Conversation): number {
    return Math.max(0, lastSeq - readSeq - uncountedCount)
  }

  lastMessage(conversation: Conversation): ChatMessage | undefined {
    const loaded = conversation.messages.at(-1)
    const { preview } = conversation
    if (loaded === undefined) return preview
    return preview !== undefined && loaded.messageSeq !== 0 && preview.messageSeq > loaded.messageSeq ? preview : loaded
  }

  setPerson(person: Person): void {
    this.people.set(person.uid, person)
    this.changed()
  }

  nameOf(uid: string): string {
    return this.people.get(uid)?.name ?? uid
  }

  #place(conversation: Conversation, message: ChatMessage, stored: { messageID: string; messageSeq: number; timestampMs?: number }): void {
    if (message.messageSeq !== 0) return
    conversation.messages.splice(conversation.messages.indexOf(message), 1)
    message.messageID = stored.messageID
    message.messageSeq = stored.messageSeq
    message.delivery = 'sent'
    message.reasonCode = 0
    if (stored.timestampMs !== undefined) message.timestampMs = stored.timestampMs
    insert(conversation.messages, message)
    conversation.lastSeq = Math.max(conversation.lastSeq, message.messageSeq)
    this.changed()
  }
}

/** The oldest message at hand that is stored. */
export function firstStored({ messages }: Conversation): ChatMessage | undefined {
  return messages.find(({ messageSeq }) => messageSeq > 0)
}

/** The last number before the first gap among the messages at hand. */
export function endOfRun({ messages }: Conversation): number {
  let seq = 0
  for (const { messageSeq } of messages) {
    if (messageSeq === 0) continue
    if (seq !== 0 && messageSeq !== seq + 1) break
    seq = messageSeq
  }
  return seq
}

/** By id; and one's own by the number the page gave it, because it is shown before it has an id. */
function isSame(message: ChatMessage, incoming: IncomingMessage, me: string): boolean {
  if (message.messageID !== '' && message.messageID === incoming.messageID) return true
  return incoming.fromUID === me && message.fromUID === me && message.clientMsgNo !== '' && message.clientMsgNo === incoming.clientMsgNo
}

/** New messages arrive at the end, pages of history at the start: look for the place from the end. */
function insert(messages: ChatMessage[], message: ChatMessage): void {
  let index = messages.length
  while (index > 0 && comesAfter(messages[index - 1], message)) index--
  messages.splice(index, 0, message)
}

function comesAfter(other: ChatMessage | undefined, message: ChatMessage): boolean {
  if (other === undefined) return false
  return other.messageSeq === 0 ? message.messageSeq !== 0 : other.messageSeq > message.messageSeq
}
