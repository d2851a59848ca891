import type { DeviceLevel } from '../model/device.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import type { ReasonCode } from '../model/reason-code.ts'

export interface VerifyTokenRequest {
  readonly uid: string
  readonly token: string
  readonly deviceFlag: number
  readonly deviceID: string
  readonly remoteAddress: string | undefined
  /** aborted when the client has gone or the time for authentication is over */
  readonly signal: AbortSignal
}

export type VerifyTokenResult =
  | { readonly ok: true; readonly deviceLevel?: DeviceLevel }
  | { readonly ok: false; readonly reason?: ReasonCode }

/**
 * May this uid connect with this token? `deviceLevel` defaults to slave; `reason` to AuthFail, and is what the client
 * sees in CONNACK. A throw, a rejection or silence beyond `authTimeoutMs` answers the client with SystemError: only
 * `{ ok: false }` says that the token is wrong.
 */
export type TokenVerifier = (request: VerifyTokenRequest) => MaybePromise<VerifyTokenResult>
