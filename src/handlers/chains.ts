import type { EventName, Steps } from '../contracts/handler.ts'
import { distributeSteps } from './channel/distribute.ts'
import { pushOnlineSteps } from './pusher/push-online.ts'
import { connCloseSteps } from './user/conn-close.ts'
import { connectSteps } from './user/connect.ts'
import { onSendSteps } from './user/on-send.ts'
import { pingSteps } from './user/ping.ts'
import { recvAckSteps } from './user/recv-ack.ts'

/** One event as it is shipped: its steps in order, and what the registry must know about their places. */
export interface EventChain {
  readonly steps: Steps<never>
  readonly defaultBefore: string | undefined
  readonly pointOfNoReturn: string | undefined
}

/** Every event of the engine. Read a row and the file it names, and you have read the event. */
export const builtInChains: Readonly<Record<EventName, EventChain>> = {
  EventConnect: { steps: connectSteps, defaultBefore: 'sendConnack', pointOfNoReturn: 'sendConnack' },
  EventOnSend: { steps: onSendSteps, defaultBefore: 'acceptSend', pointOfNoReturn: 'acceptSend' },
  EventRecvAck: { steps: recvAckSteps, defaultBefore: undefined, pointOfNoReturn: undefined },
  EventPing: { steps: pingSteps, defaultBefore: undefined, pointOfNoReturn: undefined },
  EventConnClose: { steps: connCloseSteps, defaultBefore: undefined, pointOfNoReturn: undefined },
  EventChannelDistribute: { steps: distributeSteps, defaultBefore: 'store', pointOfNoReturn: 'store' },
  EventPushOnline: { steps: pushOnlineSteps, defaultBefore: 'encode', pointOfNoReturn: undefined },
}
