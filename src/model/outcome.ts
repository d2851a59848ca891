import { isRefusalReason, type ReasonCode } from './reason-code.ts'

/** The request is refused and its sender is told why; the connection stays. */
export interface Refusal {
  readonly kind: 'refuse'
  readonly reasonCode: ReasonCode
  /** for the log and the `messageRefused` fact; the protocol has no place for it */
  readonly message: string | undefined
}

/** As a refusal, and the connection ends once that has been told. */
export interface Closing {
  readonly kind: 'close'
  readonly reasonCode: ReasonCode
  readonly message: string | undefined
}

/** What a handler says: nothing (go on), or how the chain ends. */
export type Outcome = Refusal | Closing | void | undefined

/**
 * End the chain: the sender gets `reasonCode`. A value, not an exception: refusing is an everyday answer.
 * @throws TypeError for Success, Unknown and whatever is no reason code
 */
export function refuse(reasonCode: ReasonCode, message?: string): Refusal {
  return { kind: 'refuse', reasonCode: checked(reasonCode), message }
}

/**
 * End the chain and the connection: the client gets `reasonCode`, then the socket closes.
 * @throws TypeError for Success, Unknown and whatever is no reason code
 */
export function close(reasonCode: ReasonCode, message?: string): Closing {
  return { kind: 'close', reasonCode: checked(reasonCode), message }
}

function checked(reasonCode: ReasonCode): ReasonCode {
  if (isRefusalReason(reasonCode)) return reasonCode
  throw new TypeError(`imengine: a refusal needs a reason code from 2 to 255, got ${typeof reasonCode === 'number' ? reasonCode : `a ${typeof reasonCode}`}`)
}
