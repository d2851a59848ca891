import type { ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { Outcome } from '../model/outcome.ts'
import type { ChannelDirectory } from './channel-directory.ts'

/** Who wants to send where. */
export interface AuthorizeSendRequest {
  readonly uid: string
  readonly deviceFlag: number
  /** as the client wrote it: the peer's uid in a person channel */
  readonly channelID: string
  /** the channel inside the engine */
  readonly key: ChannelKey
  /** answers are kept for `permissionCacheMs`; changes made through the engine hold at once */
  readonly channels: ChannelDirectory
  readonly nowMs: number
  /** aborted when the step has outlived its time-out */
  readonly signal: AbortSignal
}

/**
 * May this user send to this channel? Nothing returned: yes. `refuse(reasonCode)`: no, and the client is told the reason in
 * SENDACK. A throw or silence beyond `stepTimeoutMs` refuses with SystemError. Answer at once when you can: a promise delays
 * what the user sends next.
 * Source: EventOnSend, step checkPermission.
 */
export type AuthorizeSend = (request: AuthorizeSendRequest) => MaybePromise<Outcome>
