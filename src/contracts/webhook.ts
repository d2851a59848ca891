import type { MaybePromise } from '../model/maybe-promise.ts'
import type { Message } from '../model/message.ts'

export interface BeforeSendRequest {
  readonly fromUID: string
  readonly deviceFlag: number
  /** as the client named it: the peer's uid in a person channel */
  readonly channelID: string
  readonly channelType: number
  readonly clientMsgNo: string
  readonly payload: Uint8Array
}

export interface BeforeSendAnswer {
  /** 0 goes on; anything else refuses the message (SENDACK NotAllowSend) */
  readonly code: number
  /** why, for the log and the `messageRefused` fact; the protocol has no place for it */
  readonly message?: string
  /** seen by later handlers as `ctx.extra` */
  readonly extra?: Readonly<Record<string, unknown>>
  /** replaces the payload that is stored and delivered */
  readonly newPayload?: Uint8Array
}

export type WebhookEvent =
  | { readonly event: 'msg.notify'; readonly messages: readonly Message[] }
  | {
      readonly event: 'user.onlinestatus'
      readonly uid: string
      readonly deviceFlag: number
      readonly online: boolean
      readonly connectionID: string
    }

/**
 * The host's word on what happens. Both methods are optional.
 * Source: EventOnSend, step callWebhook (`beforeSend`); EventChannelDistribute, step postProcess (`notify`).
 */
export interface Webhook {
  /** Asked for every SEND that passed the permission checks. A throw or silence beyond the limit refuses with SystemError. */
  beforeSend?(request: BeforeSendRequest, signal: AbortSignal): MaybePromise<BeforeSendAnswer>
  /**
   * Told after the fact, in order per channel, at most once: a rejection is reported as `'error'` and not repeated.
   * Never holds up a message.
   */
  notify?(events: readonly WebhookEvent[], signal: AbortSignal): MaybePromise<void>
}
