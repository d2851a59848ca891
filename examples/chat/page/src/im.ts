import {
  Channel,
  ChannelTypeGroup,
  ChannelTypePerson,
  Conversation,
  Message,
  MessageText,
  PullMode,
  UnknownContent,
  WKSDK,
  type MessageContent,
  type SyncOptions,
} from 'wukongimjssdk/lib/sdk'
import type { ChannelRef, ConversationSummary, History, StoredMessage } from '../../wire.ts'
import type { IncomingMessage, Link } from './store.ts'

// What the SDK waits before it connects again; it does not say so itself.
const RECONNECT_MS = 3000
// SDK enums that its index does not export.
const Status = { Disconnect: 0, Connected: 1, Connecting: 2, ConnectFail: 3, ConnectKick: 4 } as const
const FIRST_CLIENT_SEQ = 1_000_000

export interface IMOptions {
  readonly addr: string
  readonly uid: string
  readonly token: string
  /** the host's pull API, which the SDK asks through its provider hooks */
  readonly pull: {
    conversations(): Promise<readonly ConversationSummary[]>
    history(channel: ChannelRef, page: { before?: number; after?: number; limit: number }): Promise<History>
  }
  onLink(link: Link): void
  onMessage(message: IncomingMessage): void
  onAck(ack: { clientMsgNo: string; messageID: string; messageSeq: number; reasonCode: number }): void
}

export interface SyncedConversation {
  readonly channel: ChannelRef
  readonly lastSeq: number
  readonly readSeq: number
  readonly unread: number
  readonly last: IncomingMessage | undefined
}

/**
 * The client SDK, as it comes from npm, behind the few things this page asks of it. It is one object per page, so one
 * sign-in is one page load: signing out loads the page again.
 */
export class IM {
  readonly #sdk = WKSDK.shared()
  readonly #options: IMOptions
  readonly #clientMsgNos = new Map<number, string>()
  #ended = false

  constructor(options: IMOptions) {
    this.#options = options
    const { config, chatManager, connectManager } = this.#sdk
    config.uid = options.uid
    config.token = options.token
    // The SDK tells when a connection opened or ended, not when it tries: it does ask for the address each time.
    config.provider.connectAddrCallback = (connect) => {
      options.onLink({ state: 'connecting' })
      connect(options.addr)
    }
    config.provider.syncConversationsCallback = () => this.#pullConversations()
    config.provider.syncMessagesCallback = (channel, opts) => this.#pullMessages(channel, opts)
    // After a reconnect the SDK sends what is unacknowledged again in the order of clientSeq as text, so "10" before "9".
    // Numbers of equal length keep the order they were typed in.
    chatManager.clientSeq = FIRST_CLIENT_SEQ
    chatManager.addMessageListener((message) => options.onMessage(toIncoming(message)))
    chatManager.addMessageStatusListener(({ clientSeq, messageID, messageSeq, reasonCode }) => {
      const clientMsgNo = this.#clientMsgNos.get(clientSeq)
      if (clientMsgNo === undefined) return
      this.#clientMsgNos.delete(clientSeq)
      options.onAck({ clientMsgNo, messageID: messageID.toFixed(), messageSeq, reasonCode })
    })
    connectManager.addConnectStatusListener((status, reasonCode) => this.#onStatus(status, reasonCode ?? 0))
  }

  connect(): void {
    this.#sdk.connect()
  }

  disconnect(): void {
    this.#ended = true
    this.#sdk.disconnect()
  }

  /**
   * Send a text, now or as soon as there is a connection. `clientMsgNo` is the page's own, because it outlives this page:
   * the same number after a reload or a retry is the same message to the server, which stores it once. That is why the
   * packet is built here; `chatManager.send(new MessageText(text), channel)` does the same with a number of its own.
   */
  sendText(channel: ChannelRef, { clientMsgNo, text }: { clientMsgNo: string; text: string }): void {
    const { chatManager, connectManager } = this.#sdk
    const packet = chatManager.getSendPacket(new MessageText(text), new Channel(channel.channelID, channel.channelType))
    packet.clientMsgNo = clientMsgNo
    this.#clientMsgNos.set(packet.clientSeq, clientMsgNo)
    // What is in here goes out after the next CONNACK; SENDACK takes it out.
    chatManager.sendingQueues.set(packet.clientSeq, packet)
    if (connectManager.connected()) connectManager.sendPacket(packet)
  }

  /** Every conversation of this user, through the SDK's conversation sync. */
  async conversations(): Promise<SyncedConversation[]> {
    const conversations = await this.#sdk.conversationManager.sync()
    return conversations.map(({ channel, lastMessage, unread, remoteExtra, extra }) => ({
      channel,
      lastSeq: (extra as ConversationSummary).lastSeq,
      readSeq: remoteExtra.browseTo,
      unread,
      last: lastMessage && toIncoming(lastMessage),
    }))
  }

  /** A message that came another way, as the SDK reads it. */
  read(channel: ChannelRef, stored: StoredMessage): IncomingMessage {
    return toIncoming(this.#toSDKMessage(new Channel(channel.channelID, channel.channelType), stored))
  }

  /** One page of what was said, through the SDK's message sync: below `before`, or above `after`; oldest first. */
  async messages(channel: ChannelRef, page: { before?: number; after?: number; limit: number }): Promise<{ messages: IncomingMessage[]; more: boolean }> {
    const up = page.after !== undefined
    const messages = await this.#sdk.chatManager.syncMessages(new Channel(channel.channelID, channel.channelType), {
      startMessageSeq: up ? (page.after ?? 0) + 1 : (page.before ?? 0),
      endMessageSeq: 0,
      limit: page.limit,
      pullMode: up ? PullMode.Up : PullMode.Down,
    })
    const incoming = messages.map(toIncoming)
    // A full page may have another behind it; below number 1 there is nothing.
    return { messages: incoming, more: messages.length === page.limit && (up || incoming[0]?.messageSeq !== 1) }
  }

  async #pullMessages(channel: Channel, { startMessageSeq, limit, pullMode }: SyncOptions): Promise<Message[]> {
    const position = pullMode === PullMode.Up ? { after: startMessageSeq - 1 } : startMessageSeq > 0 ? { before: startMessageSeq } : {}
    const { messages } = await this.#options.pull.history(channel, { ...position, limit })
    return messages.map((stored) => this.#toSDKMessage(channel, stored))
  }

  async #pullConversations(): Promise<Conversation[]> {
    const summaries = await this.#options.pull.conversations()
    return summaries.map((summary) => {
      const { channelID, channelType, readSeq, unread, last } = summary
      const conversation = new Conversation()
      conversation.channel = new Channel(channelID, channelType)
      conversation.unread = unread
      conversation.extra = summary
      conversation.remoteExtra.browseTo = readSeq
      conversation.remoteExtra.version = 0
      if (last !== null) {
        conversation.lastMessage = this.#toSDKMessage(conversation.channel, last)
        conversation.timestamp = last.timestampSec
      }
      return conversation
    })
  }

  #toSDKMessage(channel: Channel, stored: StoredMessage): Message {
    const message = new Message()
    message.messageID = stored.messageID
    message.messageSeq = stored.messageSeq
    message.clientMsgNo = stored.clientMsgNo
    message.fromUID = stored.fromUID
    message.channel = channel
    message.timestamp = stored.timestampSec
    message.remoteExtra.revoke = stored.recalled
    message.remoteExtra.extraVersion = stored.version
    message.content = this.#sdk.getMessageContent(stored.content.type)
    try {
      ;(message.content as MessageContent).decode(new TextEncoder().encode(JSON.stringify(stored.content)))
    } catch {
      // The SDK takes replies and mentions on trust. One message that it cannot read must not hide the others.
      message.content = new UnknownContent()
    }
    return message
  }

  #onStatus(status: number, reasonCode: number): void {
    if (this.#ended) return
    if (status === Status.Connected) return this.#options.onLink({ state: 'online' })
    if (status === Status.Disconnect) return this.#options.onLink({ state: 'waiting', untilMs: Date.now() + RECONNECT_MS })
    // Refused or kicked. The SDK leaves the socket open and would report its end as a plain disconnect: end it here.
    this.disconnect()
    this.#options.onLink(status === Status.ConnectKick ? { state: 'kicked' } : { state: 'refused', reasonCode })
  }
}

function toIncoming(message: Message): IncomingMessage {
  const { channel } = message
  // What is inside is another user's: the SDK promises text, the wire does not.
  const content: unknown = message.content
  const text: unknown = content instanceof MessageText ? content.text : undefined
  const { revoke, extraVersion } = message.remoteExtra
  return {
    channel: { channelID: channel.channelID, channelType: channel.channelType },
    clientMsgNo: message.clientMsgNo,
    messageID: String(message.messageID),
    messageSeq: message.messageSeq,
    fromUID: message.fromUID,
    text: revoke ? 'This message was taken back.' : typeof text === 'string' ? text : 'This message is of a kind this page does not show.',
    timestampMs: message.timestamp * 1000,
    version: extraVersion || 0,
    recalled: revoke || false,
  }
}

export const ChannelType = { Person: ChannelTypePerson, Group: ChannelTypeGroup } as const
