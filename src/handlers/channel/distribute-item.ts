import type { TraceMarks } from '../../contracts/trace.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { ReasonCode } from '../../model/reason-code.ts'
import type { PushSource } from '../pusher/push-online.ts'
import type { Origin } from '../origin.ts'

/**
 * Where a message is on its way through its channel.
 * - 'waiting': accepted, nothing decided.
 * - 'kept': stored and numbered, or meant for online receivers only: it will be delivered.
 * - 'repeat': the channel has it already; its sender gets the original's ids, nobody else gets anything.
 * - 'done': its sender has been told something else.
 */
type Stage = 'waiting' | 'kept' | 'repeat' | 'done'

const ITEM_BYTES = 512

/** One message in its channel's queue, with whoever waits for its fate. */
export class DistributeItem implements PushSource {
  /** only its `messageSeq` is ever assigned, by the store's answer */
  readonly message: { -readonly [K in keyof Message]: Message[K] }
  readonly key: ChannelKey
  readonly origin: Origin
  /** whom it is for instead of the channel's members; such a message is not stored */
  readonly receivers: readonly string[] | undefined
  readonly queueBytes: number
  stage: Stage = 'waiting'
  /** where it is written down what becomes of it; undefined when nobody wants to know */
  trace: TraceMarks | undefined = undefined
  /** of the message this one repeats */
  original: { readonly messageID: string; readonly messageSeq: number } | undefined

  constructor(message: Message, key: ChannelKey, origin: Origin, receivers?: readonly string[]) {
    this.message = message
    this.key = key
    this.origin = origin
    this.receivers = receivers
    const charCount = message.channelID.length + message.clientMsgNo.length + message.topic.length
    this.queueBytes = ITEM_BYTES + message.payload.length + 2 * charCount
  }

  get connectionID(): string | undefined {
    return this.origin.connectionID
  }

  get receivedAtMs(): number | undefined {
    return this.origin.receivedAtMs
  }

  keep(messageSeq: number): void {
    this.message.messageSeq = messageSeq
    this.stage = 'kept'
  }

  repeat(original: { readonly messageID: string; readonly messageSeq: number }): void {
    this.original = original
    this.stage = 'repeat'
  }

  refuse(reasonCode: ReasonCode): void {
    this.stage = 'done'
    this.origin.settle(reasonCode, '0', 0)
  }

  abandon(): void {
    this.stage = 'done'
    this.origin.abandon()
  }

  acknowledge(): void {
    const { messageID, messageSeq } = this.original ?? this.message
    this.origin.settle(ReasonCode.Success, messageID, messageSeq)
  }
}
