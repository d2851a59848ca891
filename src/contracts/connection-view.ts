import type { Message } from '../model/message.ts'

/** The payload key of one connection, agreed at CONNECT. */
export interface PayloadCipher {
  /** Plaintext to the base64 text that travels. */
  sealPayload(plaintext: Uint8Array): Uint8Array
  /** The base64 text back to plaintext; undefined when it is not what this key made. */
  openPayload(wire: Uint8Array): Uint8Array | undefined
  /** The msgKey for a sign string: 32 lower-case hex characters. */
  sign(signBytes: Uint8Array): string
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
