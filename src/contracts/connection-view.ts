import type { ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import type { ReasonCode } from '../model/reason-code.ts'

/** The payload key of one connection, agreed at CONNECT. */
export interface PayloadCipher {
  /** Plaintext to the base64 text that travels. */
  sealPayload(plaintext: Uint8Array): Uint8Array
  /** The base64 text back to plaintext; undefined when it is not what this key made. */
  openPayload(wire: Uint8Array): Uint8Array | undefined
  /** The msgKey for a sign string: 32 lower-case hex characters. */
  sign(signBytes: Uint8Array): string
  /** The text that travels, and the msgKey of `head` and that text. `head` is the text of the fields that are signed. */
  seal(head: string, plaintext: Uint8Array): { readonly payload: Uint8Array; readonly msgKey: string }
  /** The same, written: the text, 4 bytes for every 3 of the padded plaintext, to `payloadAt`, the msgKey to `msgKeyAt`. */
  sealInto(head: string, plaintext: Uint8Array, target: { readonly bytes: Uint8Array; readonly msgKeyAt: number; readonly payloadAt: number }): void
  /** The plaintext; undefined when `msgKey` is not the one of `head` and `wire`, before anything is decrypted, or as for `openPayload`. */
  open(head: string, wire: Uint8Array, msgKey: string): Uint8Array | undefined
}

/** A live client as handlers see it. */
export interface ConnectionView {
  /** unique within the engine's life */
  readonly connectionID: string
  /** empty until CONNECT has been read */
  readonly uid: string
  readonly deviceID: string
  readonly deviceFlag: number
  readonly deviceLevel: number
  /** negotiated protocol version, 1 to 5 */
  readonly version: number
  readonly remoteAddress: string | undefined
  /** nothing it sends is accepted any more and nothing can be sent to it */
  readonly closed: boolean
  /** ended by another login or by the host: what it still had in the queues is refused */
  readonly kicked: boolean
  /** absent when payloads travel plain */
  readonly cipher: PayloadCipher | undefined
  /** Queue one encoded frame; frames of one turn leave together. Does nothing once closed. */
  send(bytes: Uint8Array): void
  /**
   * Queue one encoded RECV of `message`, and remember it until RECVACK when it is stored.
   * @returns false when this receiver is skipped because it does not read (`slowConsumer: 'skip'`), or is closed
   */
  push(message: Message, bytes: Uint8Array): boolean
}

/** A channel as a client named it, with what the engine makes of that. */
export interface ChannelRef {
  /** SEND.channelID: in a person channel the peer's uid */
  readonly wireID: string
  readonly key: ChannelKey
  /** `channelKeyString(key)` */
  readonly name: string
  /** may a client name a channel like that? */
  readonly isValid: boolean
  /** it is the channel of another one's commands */
  readonly isCommand: boolean
  /** the directory's `changeCount` at which this connection's user was allowed to send here; NaN for never */
  allowedAt: number
}

/** A connection as the built-in handlers need it: what a host's handler has no use for. */
export interface ConnectionPort extends ConnectionView {
  /** when what is being handled came in: the monotonic time of the last input */
  readonly receivedAtMs: number
  /** The channel this client names; the last one is remembered, because most SENDs go where the one before went. */
  channel(channelID: string, channelType: number): ChannelRef
  /** SENDs a client makes per second are bounded; false when this is one too many */
  takeSendToken(): boolean
  /** Ask the transport to stop reading; `register` is given what starts it again. Nothing happens while it is stopped. */
  pauseUntil(register: (resume: () => void) => void): void
  /** SENDACK. Ids are '0' and 0 unless the reason is Success. */
  acknowledge(flags: number, clientSeq: number, reasonCode: ReasonCode, messageID: string, messageSeq: number): void
  /**
   * `push` for several messages of one channel at once; `ends` says where each frame ends.
   * @param tally  by message, one more for each that was pushed
   */
  pushAll(messages: readonly Message[], recvs: { readonly frames: Uint8Array; readonly ends: readonly number[] }, tally?: number[]): void
  /** RECVACK has come: the message is not sent again on this connection. */
  settleRecv(messageID: string): void
  /** End it for good after what has been sent so far. */
  end(cause: 'handler' | 'kicked'): void
}

/**
 * A connection that older messages are replayed to. While that lasts, live messages of channels that are not settled are
 * held back: the replay finds them in the store. Channels by `channelKeyString`.
 */
export interface ReplayPort extends ConnectionView {
  /** From now on, until `goLive`. */
  holdBack(): void
  /** Push a message past what holds live ones back. @returns false when it cannot be sent: closed, or it does not read */
  replay(message: Message): boolean
  /** The lowest and the highest seq of the channel that were held back since it was last settled, 0 for none. */
  heldBackFrom(channel: string): number
  heldBackTo(channel: string): number
  isHeldBack(channel: string, messageSeq: number): boolean
  /** A channel that something was held back of. */
  readonly unsettledChannel: string | undefined
  /** The channel is live behind `replayedTo`; 0 when nothing was replayed. */
  settle(channel: string, replayedTo: number): void
  /** All channels are live. */
  goLive(): void
  /** A promise while the client still has much to read; resolves when it has read, or is gone. */
  room(): Promise<void> | undefined
}

/** How a CONNECT ends. */
export interface ConnectionAdmission {
  readonly deviceLevel: number
  readonly cipher: PayloadCipher | undefined
  /** the encoded CONNACK */
  readonly connack: Uint8Array
}

/** A connection that waits for the answer to its CONNECT. */
export interface ConnectingPort extends ConnectionPort {
  /** Send CONNACK and open. The engine has made room for it in the registry by then. */
  admit(admission: ConnectionAdmission): void
  /** Send a refusing CONNACK and close after it. */
  refuse(reasonCode: number, connack: Uint8Array, cause?: 'refused' | 'auth-timeout' | 'limit' | 'kicked'): void
}
