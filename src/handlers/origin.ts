import type { IMError } from '../errors.ts'
import { ReasonCode } from '../model/reason-code.ts'

/** Who waits for the fate of a message: a client for its SENDACK, or a caller of `messages.send`. */
export interface Origin {
  /** the connection it came in on, which is not sent its own message */
  readonly connectionID: string | undefined
  /** when it came in (monotonic), when a client has sent it */
  readonly receivedAtMs?: number
  /** what the webhook answered */
  readonly extra?: Readonly<Record<string, unknown>> | undefined
  /** Tell it, once; later calls do nothing. Ids are '0' and 0 unless the reason is Success. */
  settle(reasonCode: ReasonCode, messageID: string, messageSeq: number): void
  /**
   * The engine closes before the message's fate is known. A client is told nothing: no answer is true, and it sends the
   * message again wherever it connects next.
   */
  abandon(): void
}

/** What a client is told when something of ours has failed. Source: wkproto, reason codes. */
export function reasonOf(error: IMError): ReasonCode {
  switch (error.code) {
    case 'IM_REPLICATION_TIMEOUT':
      return ReasonCode.NodeNotMatch // clients take 18 for "try again"
    case 'IM_QUEUE_FULL':
      return ReasonCode.RateLimit
    default:
      return ReasonCode.SystemError
  }
}
