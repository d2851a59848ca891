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

/** Something that has happened, for a service outside. Plain data. */
export type WebhookEvent =
  /** messages of one channel that are stored, in seq order */
  | { readonly event: 'msg.notify'; readonly messages: readonly Message[] }
  /** a stored message, and who of its receivers counted as offline when it went out */
  | { readonly event: 'msg.offline'; readonly message: Message; readonly uids: readonly string[] }
  | {
      readonly event: 'user.onlinestatus'
      readonly uid: string
      readonly deviceFlag: number
      readonly online: boolean
      readonly connectionID: string
      /** connections of this user that are left on this node: with this kind of device, and in all */
      readonly deviceOnlineCount: number
      readonly onlineCount: number
    }

/**
 * The host's word on what happens. Both methods are optional.
 * Source: EventOnSend, step callWebhook (`beforeSend`); EventChannelDistribute, EventPushOnline and the ends of connections
 * (`notify`).
 */
export interface Webhook {
  /** which events `notify` is told; default all */
  readonly events?: readonly WebhookEvent['event'][]
  /** Asked for every SEND that passed the permission checks. A throw or silence beyond the limit refuses with SystemError. */
  beforeSend?(request: BeforeSendRequest, signal: AbortSignal): MaybePromise<BeforeSendAnswer>
  /**
   * Told after the fact, in order per channel and per user, at least once: what it rejects is told again, with pauses that
   * grow, until it resolves or `webhookRetryForMs` have passed (fact `webhookGivenUp`). With a storage that has an `outbox`
   * also after a restart. Calls of different channels overlap. Never holds up a message.
   */
  notify?(events: readonly WebhookEvent[], signal: AbortSignal): MaybePromise<void>
}
