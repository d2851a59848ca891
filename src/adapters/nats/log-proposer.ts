import type { WaitSignal } from '../../contracts/abort-group.ts'
import type { AppendResult } from '../../contracts/message-store.ts'
import { describeCause, IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { Departures } from './departures.ts'
import { JetStreamFailure, Refusal, type JetStream } from './jetstream.ts'
import { isOperation, messageParts, operationPart, type Call, type Entry, type Part, type PartLimits } from './log-call.ts'
import { encodeEntry, encodeOperation, ENTRY_HEAD_BYTES, type DecodedEntry } from './log-entry.ts'
import { DUPLICATE_WINDOW_MS, type LogLimits, type LogProblem } from './log-options.ts'
import { ENVELOPE_BYTES, isRefusal } from './log-streams.ts'
import { Wake } from './wake.ts'

export interface LogProposerOptions {
  readonly log: string
  readonly subject: string
  readonly nodeID: number
  /** of this start */
  readonly boot: string
  readonly limits: LogLimits
  readonly jetStream: JetStream
  readonly isConnected: () => boolean
  readonly maxPayloadBytes: () => number
  /** the next entry number, over all partitions */
  readonly nextNumber: () => number
  /** an entry is at this place of the stream */
  readonly know: (seq: number) => void
  /** the server that confirms and the one that is read from have an entry at different places: what is read is not the log */
  readonly diverged: (error: IMError) => void
  readonly report: (problem: LogProblem) => void
}

const MIN_PAUSE_MS = 20
const MAX_PAUSE_MS = 500
const MIN_ABANDONED_COUNT = 1_000
const RETRY_FOR_MS = DUPLICATE_WINDOW_MS / 2

/**
 * Gathers what waits for one partition into entries and publishes them until their fate is known.
 *
 * Invariant: of the entries whose fate is not known and that somebody waits for, no two have messages of one channel. So a
 * channel's messages are in the log in the order in which they were proposed, though several entries are on their way at once.
 */
export class LogProposer {
  readonly #options: LogProposerOptions
  /** not in an entry yet, and their channels are free */
  #ready: Part[] = []
  /** behind an entry with parts of their channel, in the order in which they came */
  readonly #behind = new Map<string, Part[]>()
  /** by number: not applied here yet, and somebody waits */
  readonly #entries = new Map<number, Entry>()
  /** channels of entries on their way that somebody waits for, and in how many parts */
  readonly #busy = new Map<string, number>()
  readonly #onTheirWay = new Set<Entry>()
  #count = 0
  #bytes = 0
  /** about how many of those that are ready nobody waits for */
  #abandonedCount = 0
  readonly #departures: Departures
  #ended: IMError | undefined

  constructor(options: LogProposerOptions) {
    this.#options = options
    const { nodeID, limits } = options
    this.#departures = new Departures({
      nodeID,
      entryPeriodMs: limits.entryPeriodMs,
      maxEntryCount: limits.maxEntryCount,
      maxEntryBytes: limits.maxEntryBytes,
      readyCount: () => this.#ready.length,
      fillsOne: () => this.#fillsOne(),
      isUnderWay: () => this.#isAnyOnItsWay({ isLate: false }),
      isInTrouble: () => this.#isAnyOnItsWay({ isLate: true }),
      isFull: () => this.#onTheirWay.size >= limits.maxInFlightCount,
      launch: () => this.#launchOne(),
    })
  }

  /** messages that wait for their apply */
  get queuedCount(): number {
    return this.#count
  }

  /** @throws (rejects) as `Replicator.propose` does */
  propose(key: ChannelKey, messages: readonly Message[], signal: WaitSignal): Promise<readonly AppendResult[]> {
    return this.#add((call) => messageParts(call, key, messages, this.#partLimits), signal) as Promise<readonly AppendResult[]>
  }

  /** @throws (rejects) as `Replicator.operate` does */
  async operate(lane: string, operation: Uint8Array, signal: WaitSignal): Promise<unknown> {
    const [result] = await this.#add((call) => [operationPart(call, lane, operation, this.#partLimits)], signal)
    return result
  }

  #add(partsOf: (call: Call) => readonly Part[], signal: WaitSignal): Promise<readonly unknown[]> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) throw this.#ended
      if (signal.aborted) throw this.#gaveUp(signal.reason)
      const { limits } = this.#options
      const call: Call = { parts: [], isSettled: false, settle: () => undefined }
      call.parts = partsOf(call)
      let count = 0
      let bytes = 0
      for (const part of call.parts) {
        count += part.count
        bytes += part.bytes.length
      }
      const isFull = this.#count + count > limits.maxQueueCount || this.#bytes + bytes > limits.maxQueueBytes
      if (isFull && this.#count > 0) throw new IMError('IM_QUEUE_FULL', { detail: 'too much waits for the log' })
      this.#count += count
      this.#bytes += bytes
      const onAbort = (): void => this.#give(call, this.#gaveUp(signal.reason))
      signal.addEventListener('abort', onAbort, { once: true })
      call.settle = (outcome) => {
        signal.removeEventListener('abort', onAbort)
        this.#count -= count
        this.#bytes -= bytes
        if (outcome instanceof IMError) reject(outcome)
        else resolve(outcome)
      }
      for (const part of call.parts) this.#enqueue(part)
    })
  }

  /** As `Replicator.gather`, for messages of this partition. */
  gather(count: number, bytes: number): Promise<void> | undefined {
    return this.#departures.gather(count, bytes)
  }

  /** An entry of this node and this boot has been applied here. */
  applied({ number }: DecodedEntry, results: readonly unknown[], seq: number): void {
    const entry = this.#entries.get(number)
    if (entry === undefined) return
    entry.appliedSeq = seq
    if (this.#isDiverged(entry)) return // nothing of it is true
    this.#decided(entry)
    if (!entry.isLate && !isOperation(entry.parts)) this.#departures.landed(performance.now() - entry.launchedMs)
    this.#entries.delete(number)
    for (const [index, part] of entry.parts.entries()) {
      part.results = part.isOperation ? [results[index]] : ((results[index] ?? []) as readonly unknown[])
      const { parts, isSettled } = part.call
      if (!isSettled && parts.every((each) => each.results !== undefined)) this.#give(part.call, parts.flatMap((each) => each.results!))
    }
  }

  /** The connection is back, or the stream has a new leader: entries that wait for it are tried now. */
  retry(): void {
    for (const entry of this.#onTheirWay) entry.waiting.wake()
  }

  /** Whoever waits is told this, and whoever comes. */
  end(error: IMError): void {
    if (this.#ended !== undefined) return
    this.#ended = error
    this.#departures.end()
    const waiting = [...this.#ready, ...[...this.#behind.values()].flat(), ...[...this.#entries.values()].flatMap(({ parts }) => parts)]
    this.#ready = []
    this.#behind.clear()
    for (const { call } of waiting) this.#give(call, error)
  }

  get #partLimits(): PartLimits {
    const { limits, maxPayloadBytes } = this.#options
    const { maxEntryBytes, maxEntryCount } = limits
    return { maxEntryBytes, maxEntryCount, hardLimit: maxPayloadBytes() - ENVELOPE_BYTES - ENTRY_HEAD_BYTES }
  }

  #enqueue(part: Part): void {
    if (!this.#staysBehind(part)) this.#ready.push(part)
    this.#departures.request()
  }

  /** Its channel is in an entry on its way: it goes behind that, and behind what waits for it already. */
  #staysBehind(part: Part): boolean {
    if (!this.#busy.has(part.channel)) return false
    const behind = this.#behind.get(part.channel)
    if (behind === undefined) this.#behind.set(part.channel, [part])
    else behind.push(part)
    return true
  }

  #isAnyOnItsWay({ isLate }: Pick<Entry, 'isLate'>): boolean {
    for (const entry of this.#onTheirWay) if (entry.isLate === isLate) return true
    return false
  }

  /** Would what is ready be an entry that nothing can be added to? */
  #fillsOne(): boolean {
    const { maxEntryBytes, maxEntryCount } = this.#options.limits
    let bytes = ENTRY_HEAD_BYTES
    let count = 0
    for (const part of this.#ready) {
      if (part.call.isSettled) continue
      if (part.isOperation) return true // it goes alone, and what is before it goes before it
      bytes += part.bytes.length
      count += part.count
      if (bytes >= maxEntryBytes || count >= maxEntryCount) return true
    }
    return false
  }

  #launchOne(): void {
    const { limits, nodeID, boot, nextNumber } = this.#options
    const parts: Part[] = []
    let bytes = ENTRY_HEAD_BYTES
    let count = 0
    let index = 0
    for (; index < this.#ready.length; index++) {
      const part = this.#ready[index]!
      if (part.call.isSettled) continue // nobody waits any more, and nothing of it was published
      const isFull = bytes + part.bytes.length > limits.maxEntryBytes || count + part.count > limits.maxEntryCount
      if (parts.length > 0 && (isFull || part.isOperation || parts[0]!.isOperation)) break
      parts.push(part)
      bytes += part.bytes.length
      count += part.count
    }
    const rest = this.#ready.slice(index)
    this.#ready = rest
    if (parts.length === 0) return
    const number = nextNumber()
    const entry: Entry = {
      number,
      bytes: isOperation(parts)
        ? encodeOperation({ nodeID, boot, number }, parts[0]!.bytes)
        : encodeEntry({ nodeID, boot, number }, parts.map((part) => part.bytes)),
      parts,
      launchedMs: performance.now(),
      liveCount: parts.length,
      isDecided: false,
      isLate: false,
      confirmedSeq: undefined,
      appliedSeq: undefined,
      waiting: new Wake(),
    }
    this.#entries.set(number, entry)
    this.#onTheirWay.add(entry)
    if (!isOperation(parts)) this.#departures.launched()
    for (const part of parts) {
      part.entry = entry
      this.#busy.set(part.channel, (this.#busy.get(part.channel) ?? 0) + 1)
    }
    // Now: what comes next would go behind at once, and be in front of them.
    this.#ready = rest.filter((part) => !this.#staysBehind(part))
    void this.#publish(entry)
  }

  /** Until its fate is known, or nobody waits for it any more. Never rejects. */
  async #publish(entry: Entry): Promise<void> {
    const sinceMs = performance.now()
    let pauseMs = MIN_PAUSE_MS
    while (!entry.isDecided) {
      const outcome = await entry.waiting.unless(this.#try(entry))
      if (entry.isDecided) return // it is confirmed, or has come back through the log, or nobody waits
      entry.isLate = true
      this.#departures.letGo()
      this.#departures.request()
      if (outcome instanceof IMError) return this.#refuse(entry, outcome)
      if (performance.now() - sinceMs > RETRY_FOR_MS) return this.#refuse(entry, this.#gaveUp('no answer for as long as it could be repeated'))
      if (outcome === 'woken') continue
      pauseMs = (await entry.waiting.pause(pauseMs)) ? MIN_PAUSE_MS : Math.min(MAX_PAUSE_MS, 2 * pauseMs)
    }
  }

  /** Goes on when nobody waits for it any more: what the servers confirm is compared with what is read. @returns why it will never be in the log, if so */
  async #try(entry: Entry): Promise<IMError | undefined> {
    const { log, subject, nodeID, boot, limits, jetStream, isConnected } = this.#options
    // What is given to a connection that is not there might be sent when the servers have forgotten the first try.
    if (!isConnected()) return undefined
    try {
      const to = { stream: log, messageID: `${nodeID}/${boot}/${entry.number}`, timeoutMs: limits.publishTimeoutMs }
      this.#confirmed(entry, await jetStream.publish(subject, entry.bytes, to))
      return undefined
    } catch (error) {
      if (entry.isDecided || (error as JetStreamFailure).code === Refusal.DuplicateInFlight) return undefined
      const verdict = await this.#verdictOn(error as JetStreamFailure)
      if (verdict === undefined) this.#options.report({ error: new IMError('IM_CLUSTER_UNAVAILABLE', { detail: describeFailure(error), cause: error }), log, isStopped: false })
      return verdict
    }
  }

  #confirmed(entry: Entry, seq: number): void {
    entry.confirmedSeq = seq
    if (this.#isDiverged(entry)) return
    this.#options.know(seq)
    this.#decided(entry)
  }

  /**
   * A server that was parted from the others while it led a stream may keep what they never agreed to, and go on with the rest
   * behind it. Nobody is told numbers of such a log.
   */
  #isDiverged({ confirmedSeq, appliedSeq }: Entry): boolean {
    if (confirmedSeq === undefined || appliedSeq === undefined || confirmedSeq === appliedSeq) return false
    const { log, diverged } = this.#options
    diverged(new IMError('IM_LOG_DIVERGED', { detail: `${log}: confirmed at ${confirmedSeq}, and read at ${appliedSeq}` }))
    return true
  }

  /** What is told to those who wait when trying again cannot help. */
  async #verdictOn(failure: JetStreamFailure): Promise<IMError | undefined> {
    const { log, jetStream, limits } = this.#options
    if (failure.kind === 'denied') return new IMError('IM_LOG_UNFIT', { detail: `no permission to publish to ${this.#options.subject}`, cause: failure })
    if (failure.kind === 'too-large' || failure.code === Refusal.MessageTooLarge) return new IMError('IM_ENTRY_TOO_LARGE', { cause: failure })
    if (failure.code === Refusal.StreamNotMatch) {
      return new IMError('IM_LOG_REPLACED', { detail: 'another stream takes its subject', cause: failure })
    }
    if (failure.kind !== 'no-responders') return undefined
    // Nobody takes the subject: there is no leader for the moment, or no stream.
    try {
      await jetStream.streamInfo(log, limits.publishTimeoutMs)
    } catch (error) {
      if (!isRefusal(error, Refusal.StreamNotFound)) return undefined
      // Whether the partition is at its end is for the follower to say; who sends may try again.
      return new IMError('IM_LOG_REPLACED', { detail: `stream ${log} is not there`, cause: error })
    }
    return undefined
  }

  #refuse(entry: Entry, error: IMError): void {
    for (const { call } of entry.parts) this.#give(call, error)
    this.#decided(entry)
    this.#entries.delete(entry.number)
  }

  /** Its channels are free for the next entry. */
  #decided(entry: Entry): void {
    if (entry.isDecided) return
    entry.isDecided = true
    this.#onTheirWay.delete(entry)
    entry.waiting.wake()
    for (const { channel, call } of entry.parts) if (!call.isSettled) this.#free(channel)
    this.#departures.request()
  }

  /** Tell one caller. What has been published of it stays where it is; what has not never will be. */
  #give(call: Call, outcome: readonly unknown[] | IMError): void {
    if (call.isSettled) return
    call.isSettled = true
    call.settle(outcome)
    if (!(outcome instanceof IMError)) return
    for (const { entry, channel } of call.parts) {
      if (entry === undefined) {
        this.#abandonedCount++
        continue
      }
      if (!entry.isDecided) this.#free(channel)
      if (--entry.liveCount > 0) continue
      this.#entries.delete(entry.number)
      this.#decided(entry)
    }
    this.#forgetUnpublished(call)
  }

  #forgetUnpublished(call: Call): void {
    for (const { channel } of call.parts) {
      const behind = this.#behind.get(channel)?.filter((part) => part.call !== call)
      if (behind === undefined) continue
      if (behind.length > 0) this.#behind.set(channel, behind)
      else this.#behind.delete(channel)
    }
    // Those that are ready are passed over when it is their turn; not to grow, should that be long, they are thrown out before.
    if (this.#abandonedCount < MIN_ABANDONED_COUNT || 2 * this.#abandonedCount < this.#ready.length) return
    this.#ready = this.#ready.filter((part) => !part.call.isSettled)
    this.#abandonedCount = 0
  }

  #free(channel: string): void {
    const left = (this.#busy.get(channel) ?? 1) - 1
    if (left > 0) return void this.#busy.set(channel, left)
    this.#busy.delete(channel)
    const behind = this.#behind.get(channel)
    if (behind === undefined) return
    this.#behind.delete(channel)
    // In front of others, because it has waited for longer. Nothing of this channel is ready.
    this.#ready = [...behind, ...this.#ready]
    this.#departures.request()
  }

  #gaveUp(cause: unknown): IMError {
    const { nodeID, log } = this.#options
    return new IMError('IM_REPLICATION_TIMEOUT', { cause, detail: log, context: { nodeID } })
  }
}

function describeFailure(error: unknown): string {
  return error instanceof JetStreamFailure ? error.message : describeCause(error)
}
