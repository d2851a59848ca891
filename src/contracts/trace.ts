import type { ChannelKey } from '../model/channel.ts'

/**
 * Where a message has been. 'accepted': in its channel's queue. 'stored': the store has it (or has recognised a repeat, or need not
 * have it). 'refused': its sender was told a reason instead. 'pushed': first given to a connection of this node. 'acknowledged':
 * the first RECVACK.
 */
export type TraceStep = 'accepted' | 'stored' | 'refused' | 'pushed' | 'acknowledged'

/** What one node knows of a message that it has accepted: never what is in it. */
export interface MessageTrace {
  readonly messageID: string
  readonly key: ChannelKey
  readonly fromUID: string
  readonly clientMsgNo: string
  /** of the connection it came in on; undefined for `messages.send` */
  readonly connectionID: string | undefined
  /** the reason code, by name, of its SENDACK, or of what `messages.send` was told; undefined while that is open */
  readonly reason: string | undefined
  /** 0 for a message without a number, and until it has one */
  readonly messageSeq: number
  /** the message that it repeats, which is what its sender was told of; nobody got this one */
  readonly repeatOf: string | undefined
  /** in the order they were first reached; milliseconds since 1970 */
  readonly steps: readonly { readonly step: TraceStep; readonly atMs: number }[]
  /** connections of this node that it was given to, redeliveries and replays not counted */
  readonly pushedCount: number
  /** other nodes that it was handed to; with a replicator they have it from the log */
  readonly nodeCount: number
  /** connections of this node that have acknowledged it */
  readonly acknowledgedCount: number
}

/** One message, as the parts that it passes write down what they do with it. */
export interface TraceMarks {
  /** @param repeatOf  the message that it repeats */
  stored(messageSeq: number, repeatOf: string | undefined, atMs: number): void
  refused(reason: string, atMs: number): void
  pushed(connectionCount: number, nodeCount: number, atMs: number): void
}
