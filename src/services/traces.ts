import type { Clock } from '../contracts/clock.ts'
import type { MessageTrace, TraceMarks, TraceStep } from '../contracts/trace.ts'
import type { ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'

/** Of one message; -1 for a step that it has not reached. */
class Trace implements TraceMarks {
  readonly messageID: string
  readonly #key: ChannelKey
  readonly #fromUID: string
  readonly #clientMsgNo: string
  readonly #connectionID: string | undefined
  readonly #acceptedMs: number
  #reason: string | undefined = undefined
  #messageSeq = 0
  #repeatOf: string | undefined = undefined
  #storedMs = -1
  #refusedMs = -1
  #pushedMs = -1
  #acknowledgedMs = -1
  #pushedCount = 0
  #nodeCount = 0
  #acknowledgedCount = 0

  // Not the message itself: its payload would be kept for as long as the trace is.
  constructor({ messageID, fromUID, clientMsgNo, timestampMs }: Message, key: ChannelKey, connectionID: string | undefined) {
    this.messageID = messageID
    this.#key = key
    this.#fromUID = fromUID
    this.#clientMsgNo = clientMsgNo
    this.#connectionID = connectionID
    this.#acceptedMs = timestampMs
  }

  stored(messageSeq: number, repeatOf: string | undefined, atMs: number): void {
    this.#reason = 'Success'
    this.#messageSeq = messageSeq
    this.#repeatOf = repeatOf
    this.#storedMs = atMs
  }

  refused(reason: string, atMs: number): void {
    this.#reason = reason
    this.#refusedMs = atMs
  }

  pushed(connectionCount: number, nodeCount: number, atMs: number): void {
    if (connectionCount > 0 && this.#pushedMs < 0) this.#pushedMs = atMs
    this.#pushedCount += connectionCount
    this.#nodeCount += nodeCount
  }

  acknowledged(atMs: () => number): void {
    if (this.#acknowledgedMs < 0) this.#acknowledgedMs = atMs()
    this.#acknowledgedCount++
  }

  snapshot(): MessageTrace {
    const marks: readonly (readonly [TraceStep, number])[] = [
      ['accepted', this.#acceptedMs], ['stored', this.#storedMs], ['refused', this.#refusedMs], ['pushed', this.#pushedMs], ['acknowledged', this.#acknowledgedMs],
    ]
    return Object.freeze({
      messageID: this.messageID,
      key: this.#key,
      fromUID: this.#fromUID,
      clientMsgNo: this.#clientMsgNo,
      connectionID: this.#connectionID,
      reason: this.#reason,
      messageSeq: this.#messageSeq,
      repeatOf: this.#repeatOf,
      steps: Object.freeze(marks.filter(([, atMs]) => atMs >= 0).map(([step, atMs]) => Object.freeze({ step, atMs }))),
      pushedCount: this.#pushedCount,
      nodeCount: this.#nodeCount,
      acknowledgedCount: this.#acknowledgedCount,
    })
  }
}

/** What became of the last messages that this node has accepted: a ring, in which each new one takes the place of the oldest. */
export class Traces {
  readonly #clock: Pick<Clock, 'nowMs'>
  readonly #ring: (Trace | undefined)[]
  readonly #byID = new Map<string, Trace>()
  #next = 0

  /** @param count  1 or more */
  constructor(count: number, clock: Pick<Clock, 'nowMs'>) {
    this.#ring = Array.from({ length: count }, () => undefined)
    this.#clock = clock
  }

  readonly nowMs = (): number => this.#clock.nowMs()

  begin(message: Message, key: ChannelKey, connectionID: string | undefined): TraceMarks {
    const trace = new Trace(message, key, connectionID)
    const oldest = this.#ring[this.#next]
    if (oldest !== undefined) this.#byID.delete(oldest.messageID)
    this.#ring[this.#next] = trace
    this.#next = (this.#next + 1) % this.#ring.length
    this.#byID.set(message.messageID, trace)
    return trace
  }

  /** A connection of this node has acknowledged it. */
  acknowledged(messageID: string): void {
    this.#byID.get(messageID)?.acknowledged(this.nowMs)
  }

  of(messageID: string): MessageTrace | undefined {
    return this.#byID.get(messageID)?.snapshot()
  }
}
