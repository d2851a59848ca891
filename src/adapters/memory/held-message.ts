import { createHash } from 'node:crypto'
import type { MessageChange } from '../../contracts/message-store.ts'
import type { Message, Revision } from '../../model/message.ts'

/**
 * A message as the memory store holds it: a copy of its own, numbered when it enters a channel's log. Fields are copied one by
 * one, so that all have one shape; spreading is several times slower.
 */
export class HeldMessage implements Omit<Message, 'revision'> {
  readonly messageID: string
  messageSeq = 0
  readonly clientMsgNo: string
  readonly fromUID: string
  readonly channelID: string
  readonly channelType: number
  payload: Buffer
  readonly timestampMs: number
  readonly expireSec: number
  readonly topic: string
  readonly setting: number
  readonly noPersist: boolean
  readonly redDot: boolean
  readonly syncOnce: boolean
  revision: Revision | undefined = undefined
  /** Of what a revised message came with, only a digest: enough to judge repeats, and what was recalled is really gone. */
  #originalDigest: Buffer | undefined = undefined
  /** when the store may forget it, by its own `expireSec` or by the store's retention; Infinity for never */
  readonly endsAtMs: number
  heapIndex = -1
  /** its neighbours in the order of storing, and where it is found by its id: see `Arrivals` */
  earlier: HeldMessage | undefined = undefined
  later: HeldMessage | undefined = undefined
  place = -1

  constructor(message: Message, maxAgeMs: number) {
    this.messageID = message.messageID
    this.clientMsgNo = message.clientMsgNo
    this.fromUID = message.fromUID
    this.channelID = message.channelID
    this.channelType = message.channelType
    this.payload = Buffer.from(message.payload)
    this.timestampMs = message.timestampMs
    this.expireSec = message.expireSec
    this.topic = message.topic
    this.setting = message.setting
    this.noPersist = message.noPersist
    this.redDot = message.redDot
    this.syncOnce = message.syncOnce
    const expireMs = message.expireSec > 0 ? message.expireSec * 1000 : Infinity
    // At the age of `maxAgeMs` it is not older than that yet.
    this.endsAtMs = message.timestampMs + Math.min(expireMs, maxAgeMs + 1)
  }

  get isRecalled(): boolean {
    return this.revision?.kind === 'recalled'
  }

  /** A recalled message stays as it is. */
  revise(change: MessageChange): void {
    if (this.isRecalled) return
    const { kind, byUID, timestampMs } = change
    this.#originalDigest ??= digestOf(this.payload)
    this.payload = Buffer.from(kind === 'edited' ? change.payload : [])
    this.revision = { kind, version: (this.revision?.version ?? 0) + 1, byUID, timestampMs }
  }

  /** Whether these bytes are what it came with, whatever has become of it since. */
  cameWith(payload: Buffer): boolean {
    return this.#originalDigest === undefined ? this.payload.equals(payload) : this.#originalDigest.equals(digestOf(payload))
  }

  /** A copy for the reader, who may do with it as they like. */
  toMessage(): Message {
    const message: Message = {
      messageID: this.messageID,
      messageSeq: this.messageSeq,
      clientMsgNo: this.clientMsgNo,
      fromUID: this.fromUID,
      channelID: this.channelID,
      channelType: this.channelType,
      payload: Buffer.from(this.payload),
      timestampMs: this.timestampMs,
      expireSec: this.expireSec,
      topic: this.topic,
      setting: this.setting,
      noPersist: this.noPersist,
      redDot: this.redDot,
      syncOnce: this.syncOnce,
    }
    return this.revision === undefined ? message : { ...message, revision: { ...this.revision } }
  }

  isExpiredAt(nowMs: number): boolean {
    return this.expireSec > 0 && this.timestampMs + this.expireSec * 1000 <= nowMs
  }
}

function digestOf(payload: Buffer): Buffer {
  return createHash('sha256').update(payload).digest()
}
