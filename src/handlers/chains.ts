import type { EventName, Handler, Steps } from '../contracts/handler.ts'
import type { IMErrorCode } from '../errors.ts'
import { distributeSteps } from './channel/distribute.ts'
import { pushOnlineSteps } from './pusher/push-online.ts'
import { connCloseSteps } from './user/conn-close.ts'
import { connectSteps } from './user/connect.ts'
import { onSendSteps } from './user/on-send.ts'
import { pingSteps } from './user/ping.ts'
import { recvAckSteps } from './user/recv-ack.ts'

interface ShippedChain {
  readonly steps: Steps<never>
  /** where a host's handler goes that names no place; undefined puts it last */
  readonly defaultBefore: string | undefined
  /** behind this step nothing can be refused any more */
  readonly pointOfNoReturn: string | undefined
}

/** Every event of the engine. Read a row and the file it names, and you have read the event. */
const shipped: Readonly<Record<EventName, ShippedChain>> = {
  EventConnect: { steps: connectSteps, defaultBefore: 'sendConnack', pointOfNoReturn: 'sendConnack' },
  EventOnSend: { steps: onSendSteps, defaultBefore: 'acceptSend', pointOfNoReturn: 'acceptSend' },
  EventRecvAck: { steps: recvAckSteps, defaultBefore: undefined, pointOfNoReturn: undefined },
  EventPing: { steps: pingSteps, defaultBefore: undefined, pointOfNoReturn: undefined },
  EventConnClose: { steps: connCloseSteps, defaultBefore: undefined, pointOfNoReturn: undefined },
  EventChannelDistribute: { steps: distributeSteps, defaultBefore: 'store', pointOfNoReturn: 'store' },
  EventPushOnline: { steps: pushOnlineSteps, defaultBefore: 'encode', pointOfNoReturn: undefined },
}

/** What a step's failure is called: the name of whoever it depends on. Steps that are not here depend on nobody. */
const failureCodes: Readonly<Record<string, IMErrorCode>> = {
  authenticate: 'IM_VERIFIER_FAILED',
  loadSession: 'IM_DIRECTORY_UNAVAILABLE',
  leavePresence: 'IM_PRESENCE_UNAVAILABLE',
  checkPermission: 'IM_DIRECTORY_UNAVAILABLE',
  callWebhook: 'IM_WEBHOOK_FAILED',
  store: 'IM_STORE_UNAVAILABLE',
  replicate: 'IM_REPLICATION_TIMEOUT',
  filterOnline: 'IM_PRESENCE_UNAVAILABLE',
}

/** What hangs in a step, where that has another name than what fails in it: a host's kick policy fails at once. */
const timeoutCodes: Readonly<Record<string, IMErrorCode>> = { ...failureCodes, sendConnack: 'IM_PRESENCE_UNAVAILABLE' }

export interface StepTimeouts {
  readonly stepTimeoutMs: number
  readonly authTimeoutMs: number
  readonly webhookTimeoutMs: number
  readonly replicateTimeoutMs: number
  readonly presenceTimeoutMs: number
  readonly peerKickTimeoutMs: number
}

interface BuiltInStep {
  readonly name: string
  readonly handler: Handler<never>
  readonly timeoutMs: number
  readonly failureCode: IMErrorCode
  readonly timeoutCode: IMErrorCode
  readonly onError: 'fail'
}

export type BuiltInEventChain = Omit<ShippedChain, 'steps'> & { readonly steps: readonly BuiltInStep[] }

/** The chains as the engine ships them, each step with its time-out and with what its failures are called. */
export function builtInChains(limits: StepTimeouts): Record<EventName, BuiltInEventChain> {
  const timeouts: Readonly<Record<string, number>> = {
    authenticate: limits.authTimeoutMs,
    callWebhook: limits.webhookTimeoutMs,
    replicate: limits.replicateTimeoutMs,
    // These two wait for something with a limit of its own, and go on without it: the step must outlive that.
    sendConnack: limits.stepTimeoutMs + limits.peerKickTimeoutMs,
    filterOnline: limits.stepTimeoutMs + limits.presenceTimeoutMs,
  }
  const chains = {} as Record<EventName, BuiltInEventChain>
  for (const event of Object.keys(shipped) as EventName[]) {
    const steps = Object.entries(shipped[event].steps).map(([name, handler]): BuiltInStep => {
      const timeoutMs = timeouts[name] ?? limits.stepTimeoutMs
      const failureCode = failureCodes[name] ?? 'IM_HANDLER_FAILED'
      const timeoutCode = timeoutCodes[name] ?? 'IM_HANDLER_TIMEOUT'
      return { name, handler, timeoutMs, failureCode, timeoutCode, onError: 'fail' }
    })
    chains[event] = { ...shipped[event], steps }
  }
  return chains
}
