/** What load and servers of a benchmark agree on: the sizes of the raw relay's records, and the messages between processes. */

/** one message of the relay: as long as a SEND of the engine with the same payload */
export const RELAY_MESSAGE_BYTES = 160
/** its acknowledgement, as long as a SENDACK */
export const RELAY_ACK_BYTES = 19

export interface Job {
  readonly kind: 'relay' | 'plain' | 'encrypted'
  readonly port: number
  readonly pairCount: number
  /** messages a sender may have under way */
  readonly window: number
  readonly payloadBytes: number
  readonly warmUpMs: number
  readonly measureMs: number
}

export interface Result {
  /** messages acknowledged and delivered, per second */
  readonly messagesPerSecond: number
  /** share of one core the load generator used: near 1 it is itself the bottleneck */
  readonly loadCPU: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export type FromServer = { readonly port: number } | { readonly cpuMs: number }
