/**
 * Nodes tell each other what they have read of the log, over core NATS on `<name>.digests`, with every beat in which there is
 * something to tell. Nothing of it outlives this process; what is lost on its way is told again when there is a doubt. While there is no
 * connection no beat counts, because nobody can be heard. `close` says nothing more.
 */
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node'
import { describeCause, IMError } from '../../errors.ts'
import { decodeDigest, encodeDigest, type DigestFrame } from './digest-wire.ts'
import { LogDigest, type DigestVerdict } from './log-digest.ts'
import type { LogProblem } from './log-options.ts'

/** One stream, as this node follows it. */
export interface DigestedLog {
  readonly log: string
  /** this node's store began in this life with the storage of another node, or with nothing of this stream */
  readonly isFresh: boolean
  /** it has stopped: nothing is told of it any more */
  readonly isStopped: () => boolean
  readonly stop: (error: IMError) => void
}

export interface LogDigestsOptions {
  readonly nats: NatsConnection
  /** its subject begins with it */
  readonly name: string
  readonly nodeID: number
  /** of this start, 16 hex digits */
  readonly boot: string
  readonly beatMs: number
  readonly isConnected: () => boolean
  /** by partition */
  readonly logs: readonly DigestedLog[]
  readonly report: (problem: LogProblem) => void
}

export class LogDigests {
  readonly #options: LogDigestsOptions
  readonly #digests: readonly LogDigest[]
  readonly #subscription: Subscription
  readonly #timer: NodeJS.Timeout

  constructor(options: LogDigestsOptions) {
    this.#options = options
    const { nats, nodeID, beatMs, logs } = options
    this.#digests = logs.map((each) => new LogDigest(nodeID, (verdict) => this.#judged(each, verdict)))
    this.#subscription = nats.subscribe(subjectOf(options), {
      callback: (error, message) => {
        if (error === null || error === undefined) this.#heard(message)
      },
    })
    this.#timer = setInterval(() => this.#beat(), beatMs)
  }

  /** Is there a difference in any stream that nobody has judged yet? */
  get isInDoubt(): boolean {
    return this.#digests.some(({ isInDoubt }) => isInDoubt)
  }

  applied(partition: number, seq: number, checksum: number): void {
    this.#digests[partition]!.applied(seq, checksum)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#subscription.unsubscribe()
  }

  #beat(): void {
    const { nats, nodeID, boot, isConnected, logs } = this.#options
    if (!isConnected()) return
    for (const [partition, digest] of this.#digests.entries()) {
      const { isFresh, isStopped } = logs[partition]!
      if (isStopped()) continue
      for (const testimony of digest.beat()) {
        nats.publish(subjectOf(this.#options), encodeDigest({ witness: { nodeID, boot, isFresh }, partition, testimony }))
      }
    }
  }

  #heard({ data }: Msg): void {
    const { logs, report } = this.#options
    let frame: DigestFrame
    try {
      frame = decodeDigest(data)
    } catch (error) {
      const why = error instanceof RangeError ? error.message : describeCause(error)
      return report({
        error: new IMError('IM_PEER_UNREACHABLE', { detail: `what another node says of its log could not be read: ${why}` }),
        log: undefined,
        isStopped: false,
      })
    }
    const digest = this.#digests[frame.partition]
    if (digest === undefined || logs[frame.partition]!.isStopped()) return
    digest.heard(frame.witness, frame.testimony)
  }

  #judged({ log, stop }: DigestedLog, verdict: DigestVerdict): void {
    const error = new IMError('IM_LOG_DIVERGED', { detail: `${log}: ${textOf(verdict)}` })
    if (verdict.kind === 'stop') stop(error)
    else this.#options.report({ error, log, isStopped: false })
  }
}

function subjectOf({ name }: LogDigestsOptions): string {
  return `${name}.digests`
}

function textOf({ kind, from, to, nodeIDs, agreeingNodeIDs }: DigestVerdict): string {
  const where = from === to ? `entry ${from}` : `entries ${from} to ${to}`
  const others = named(nodeIDs)
  switch (kind) {
    case 'stop': {
      if (agreeingNodeIDs.length + 1 === nodeIDs.length) {
        return `${others} read something else in ${where}, and as many read what this node did: all stop. Decide whose storage stays and start that node as it is; end the others, empty their folders, start them`
      }
      return `${others} read something else in ${where}, more than read what this node did: end this node, put a backup of another node into its folder, and start it`
    }
    case 'goOn':
      return `${others} read something else in ${where}, fewer than read what this node did, which goes on: end ${others}, empty the folder, start it`
    case 'returned':
      return `${others} read something else in ${where} and has started again with that: end ${others}, empty the folder, start it`
  }
}

function named(nodeIDs: readonly number[]): string {
  return `${nodeIDs.length === 1 ? 'node' : 'nodes'} ${nodeIDs.join(', ')}`
}
