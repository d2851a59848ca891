/**
 * Follows one stream from where this node's store stands and applies what comes, in order and without a hole.
 *
 * By a pull consumer of our own, without acknowledgements, in the memory of one server: the only thing that says how far this
 * node has come is its store, so a consumer holds nothing that must survive. Whenever anything is doubtful (the server of the
 * consumer is gone or silent, the connection came back, a number is missing) it is thrown away and a new one is made from the
 * entry after the last that arrived. A pull asks for no more than there is room for, which a push would send anyway.
 *
 * A consumer is made by the server that leads all of JetStream. When that has died together with the leader of the stream, the
 * stream may have a new one seconds before: until there is a consumer, entries are fetched one by one from there.
 */
import type { Msg, Subscription } from '@nats-io/transport-node'
import { asIMError, IMError } from '../../errors.ts'
import { JetStreamFailure, nanos, Refusal, type JetStream } from './jetstream.ts'
import { LogApplier, type LogApplierOptions } from './log-applier.ts'
import { decodeEntry, type DecodedEntry } from './log-entry.ts'
import type { LogLimits, NatsLogOptions } from './log-options.ts'
import { isRefusal } from './log-streams.ts'
import { Wake } from './wake.ts'

export interface LogFollowerOptions extends Pick<LogApplierOptions, 'log' | 'host' | 'applied' | 'report'> {
  readonly limits: LogLimits
  readonly jetStream: JetStream
  readonly isConnected: () => boolean
  readonly maxPayloadBytes: () => number
  readonly recover: NatsLogOptions['recover']
  /** the number of applied entries has grown, or the follower has stopped */
  readonly moved: () => void
}

const HEARTBEAT_MS = 1_000
/** A consumer that has said nothing for this long, though asked, is given up. */
const SILENCE_MS = 3_500
const PULL_EXPIRES_MS = 30_000
/** How often to ask how far the stream has come. */
const LOOK_EVERY_MS = 5_000
const ASK_TIMEOUT_MS = 2_000
/** A consumer that is not made after this long may take seconds. */
const FETCH_AFTER_MS = 100
/** between two looks for an entry that is not there yet */
const FETCH_PAUSE_MS = 25
const MIN_PAUSE_MS = 50
const MAX_PAUSE_MS = 1_000
/** A missing entry that so many consumers in a row, and for so long, did not bring is not there: a server that has just started may catch up. */
const MAX_HOLE_COUNT = 3
const HOLE_AFTER_MS = 5_000
/** A server that has just become leader may not have everything it has agreed to yet: a shorter stream, or none, is believed after this. */
const REPLACED_AFTER_MS = 5_000

export class LogFollower {
  readonly #options: LogFollowerOptions
  readonly #applier: LogApplier
  /** has arrived, or was in the store */
  #receivedSeq = 0
  #lastSeq = 0
  #created: string | undefined
  #doubtSinceMs: number | undefined
  /** of the pull under way, how many may still come; 0: there is none */
  #pulledCount = 0
  #subscription: Subscription | undefined
  #consumer: string | undefined
  /** the last entry that was fetched while the consumer was made, which brings it again */
  #fetchedSeq = 0
  #heardMs = 0
  /** when this node last asked how far the stream has come */
  #lookedMs = 0
  /** the last entry that had come when the answer was that there are more; -1: there were none */
  #behindSeq = -1
  #stopped: IMError | undefined
  #isClosed = false
  #following: Promise<void> | undefined
  /** ends the pause, the question, or the consumer that is under way */
  readonly #waiting = new Wake()
  /** nothing that comes from now on can be applied */
  #isAtEnd = false
  /** before the next try to have a consumer */
  #pauseMs = MIN_PAUSE_MS
  /** consumers in a row whose first entry was not the one they were made for */
  #holeCount = 0
  #holeSinceMs = 0

  constructor(options: LogFollowerOptions) {
    this.#options = options
    const moved = (): void => {
      options.moved()
      this.#pull()
    }
    this.#applier = new LogApplier({ ...options, moved, ended: (error) => this.stop(error) })
  }

  get appliedSeq(): number {
    return this.#applier.appliedSeq
  }

  /**
   * The last of the stream that this node knows of. Never by what comes with an entry: how many are behind it is guessed by servers
   * whose leader has just changed, up to twice the length of the stream (2.14.9), and a node that believed it would wait for them.
   */
  get lastSeq(): number {
    return Math.max(this.#lastSeq, this.#receivedSeq)
  }

  get stopped(): IMError | undefined {
    return this.#stopped
  }

  get isFollowing(): boolean {
    return this.#consumer !== undefined
  }

  start(position: number): void {
    this.#moveTo(position)
    this.#following = this.#follow()
  }

  /** An entry is known to be at `seq`. */
  know(seq: number): void {
    if (seq > this.#lastSeq) this.#lastSeq = seq
  }

  /** The connection has come back: what the consumer has sent meanwhile is lost. */
  restart(): void {
    this.#waiting.wake()
  }

  /** The stream has a new leader: whoever waits for one asks it now. A consumer that is there may be on any server, and stays. */
  elected(): void {
    if (this.#consumer !== undefined) return
    this.#pauseMs = MIN_PAUSE_MS
    this.#waiting.wake()
  }

  /** Nothing of it can be trusted any more. */
  stop(error: IMError): void {
    if (this.#stopped !== undefined || this.#isClosed) return
    this.#stopped = error
    this.#applier.stop()
    this.#waiting.wake()
    this.#options.report({ error, log: this.#options.log, isStopped: true })
    this.#options.moved()
  }

  /** Resolves when nothing is under way any more. What has been given to the host is waited for. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#applier.stop()
    this.#drop() // now: the connection may be closed next
    this.#waiting.wake()
    await this.#following
    await this.#applier.idle()
  }

  get #isOver(): boolean {
    return this.#isClosed || this.#stopped !== undefined
  }

  async #follow(): Promise<void> {
    while (!this.#isOver && !this.#isAtEnd) {
      const before = this.#receivedSeq
      try {
        if (await this.#open()) await this.#consumed()
      } catch (error) {
        if (error instanceof IMError) {
          this.stop(error)
          return
        }
        this.#options.report({ error: asIMError(error, 'IM_CLUSTER_UNAVAILABLE', {}), log: this.#options.log, isStopped: false })
      } finally {
        this.#drop()
      }
      if (this.#receivedSeq > before) this.#pauseMs = MIN_PAUSE_MS
      const pauseMs = this.#pauseMs
      this.#pauseMs = Math.min(MAX_PAUSE_MS, 2 * pauseMs)
      if (!this.#isOver) await this.#waiting.pause(pauseMs)
    }
  }

  /** @returns whether there is a consumer now @throws an IMError when there never will be one */
  async #open(): Promise<boolean> {
    const { log, jetStream } = this.#options
    if (!this.#options.isConnected()) return false
    if (!(await this.#isContinued())) return false
    const inbox = `_INBOX.imengine.${log}.${crypto.randomUUID()}`
    this.#subscription = jetStream.nats.subscribe(inbox, { callback: (error, message) => this.#arrived(error, message) })
    this.#consumer = await this.#makeConsumer()
    if (this.#consumer === undefined || this.#isOver || this.#isAtEnd) return false
    this.#heardMs = performance.now()
    this.#pull()
    return true
  }

  /**
   * Entries are fetched until it is there. The leader of the stream has only what the servers have agreed on, as a consumer has.
   * @returns its name; undefined when it was interrupted
   */
  async #makeConsumer(): Promise<string | undefined> {
    const { log, jetStream } = this.#options
    this.#fetchedSeq = 0
    const creating = jetStream.createConsumer(log, this.#receivedSeq + 1, ASK_TIMEOUT_MS)
    let isWaiting = true
    const settled = this.#waiting.unless(creating).finally(() => (isWaiting = false))
    const over = settled.then(
      () => undefined,
      () => undefined,
    )
    await within(FETCH_AFTER_MS, over)
    while (isWaiting && !this.#isAtEnd) {
      const bytes = this.#hasRoom ? await Promise.race([this.#fetch(this.#receivedSeq + 1), over]) : undefined
      if (bytes === 'refused') break // it is for the consumer to bring it, or to tell why not
      if (bytes === undefined) await within(FETCH_PAUSE_MS, over)
      else if (!this.#isOver) this.#take((this.#fetchedSeq = this.#receivedSeq + 1), bytes)
    }
    const name = await settled
    if (name !== 'woken') return name
    void creating.then((late) => jetStream.deleteConsumer(log, late), () => undefined)
    return undefined
  }

  get #hasRoom(): boolean {
    const { limits } = this.#options
    return this.#applier.heldCount < limits.maxApplyCount && this.#applier.heldBytes < limits.maxApplyBytes
  }

  /** @returns undefined when it is not there, or nobody answers */
  async #fetch(seq: number): Promise<Uint8Array | 'refused' | undefined> {
    const { log, jetStream } = this.#options
    try {
      return await jetStream.entryAt(log, seq, ASK_TIMEOUT_MS)
    } catch (error) {
      const isSilence = error instanceof JetStreamFailure && (error.kind === 'timeout' || error.kind === 'no-responders')
      return isSilence ? undefined : 'refused'
    }
  }

  /** Is the stream one that goes on where this node is? */
  async #isContinued(): Promise<boolean> {
    const { log, jetStream, recover } = this.#options
    let info
    try {
      info = await this.#waiting.unless(jetStream.streamInfo(log, ASK_TIMEOUT_MS)) // servers without a leader do not answer
      if (info === 'woken') return false // and ask again
    } catch (error) {
      if (!isRefusal(error, Refusal.StreamNotFound)) throw error
      return this.#doubt(`stream ${log} is not there`)
    }
    const { first_seq: firstSeq, last_seq: lastSeq } = info.state
    this.#created ??= info.created
    if (info.created !== this.#created) throw new IMError('IM_LOG_REPLACED', { detail: `stream ${log} has been deleted and made anew` })
    this.know(lastSeq)
    if (lastSeq < this.#receivedSeq) return this.#doubt(`stream ${log} ends at ${lastSeq}, and this node has applied ${this.#receivedSeq}`)
    this.#doubtSinceMs = undefined
    if (firstSeq <= this.#receivedSeq + 1) return true
    const gap = new IMError('IM_LOG_GAP', { detail: `stream ${log} begins at ${firstSeq}, and this node has applied ${this.#receivedSeq}` })
    if (recover === undefined) throw gap
    await this.#applier.idle()
    await this.#options.host.settle?.() // the store stands where it will stand
    const position = await recover(log, this.#receivedSeq + 1)
    if (position < this.#receivedSeq) throw gap
    this.#moveTo(position)
    this.#options.moved()
    return false // and look again
  }

  /** It looks as if the log was lost. @returns false, to look again @throws IM_LOG_REPLACED when it has looked so for some time */
  #doubt(detail: string): false {
    this.#doubtSinceMs ??= performance.now()
    if (performance.now() - this.#doubtSinceMs < REPLACED_AFTER_MS) return false
    throw new IMError('IM_LOG_REPLACED', { detail })
  }

  #moveTo(position: number): void {
    this.#receivedSeq = position
    this.#applier.moveTo(position)
  }

  /** Resolves when the consumer has to be made anew. */
  async #consumed(): Promise<void> {
    if (this.#isOver || this.#isAtEnd) return // since it was made: nobody would wake it
    this.#lookedMs = performance.now()
    const watch = setInterval(() => {
      const nowMs = performance.now()
      if (this.#isOwed && nowMs - this.#heardMs > SILENCE_MS) this.#waiting.wake()
      else if (nowMs - this.#lookedMs > LOOK_EVERY_MS) this.#look(nowMs)
    }, HEARTBEAT_MS / 2)
    await this.#waiting.woken()
    clearInterval(watch)
  }

  /** Does the consumer owe what there is? It does not while there is no room here. */
  get #isOwed(): boolean {
    return this.#pulledCount > 0
  }

  /** How far has the stream come? If nothing comes though there is more, the consumer's server does not have it, and the next may be on another one. */
  #look(nowMs: number): void {
    const { jetStream, log } = this.#options
    const consumer = this.#consumer
    const receivedSeq = this.#receivedSeq
    this.#lookedMs = nowMs
    if (this.#isOwed && this.#behindSeq === receivedSeq) return this.#waiting.wake()
    jetStream.streamInfo(log, ASK_TIMEOUT_MS).then(
      ({ state }) => {
        this.know(state.last_seq)
        this.#behindSeq = this.#isOwed && this.#lastSeq > this.#receivedSeq ? this.#receivedSeq : -1
      },
      () => {
        // The consumer's server may be one that has lost the others, and goes on saying that there is nothing.
        const hasBroughtNothing = this.#isOwed && this.#receivedSeq === receivedSeq
        if (hasBroughtNothing && this.#consumer === consumer && this.#lookedMs === nowMs) this.#waiting.wake()
      },
    )
  }

  #drop(): void {
    this.#subscription?.unsubscribe()
    if (this.#consumer !== undefined && this.#options.isConnected()) this.#options.jetStream.deleteConsumer(this.#options.log, this.#consumer)
    this.#subscription = undefined
    this.#consumer = undefined
    this.#pulledCount = 0
  }

  /** Ask for what there is room for, once half of the room is free. */
  #pull(): void {
    const { limits, jetStream, log, maxPayloadBytes } = this.#options
    if (this.#pulledCount > 0 || this.#consumer === undefined || this.#subscription === undefined || this.#isOver) return
    const count = limits.maxApplyCount - this.#applier.heldCount
    const bytes = limits.maxApplyBytes - this.#applier.heldBytes
    if (count < limits.maxApplyCount / 2 || bytes < limits.maxApplyBytes / 2) return
    this.#pulledCount = count
    this.#heardMs = performance.now()
    jetStream.pull(log, this.#consumer, this.#subscription.getSubject(), {
      batch: count,
      max_bytes: Math.max(bytes, 2 * maxPayloadBytes()),
      expires: nanos(PULL_EXPIRES_MS),
      idle_heartbeat: nanos(HEARTBEAT_MS),
    })
  }

  #arrived(error: unknown, message: Msg): void {
    if (this.#isOver || this.#isAtEnd || this.#subscription === undefined) return
    if (error !== null && error !== undefined) return this.#waiting.wake()
    this.#heardMs = performance.now()
    // What the server says of itself has no bytes, and an entry has some: its headers need not be read.
    const status = message.data.length > 0 ? 0 : (message.headers?.code ?? 0)
    if (status !== 0) return this.#told(status, message.headers?.description ?? '')
    const seq = placeOf(message.reply)
    this.#pulledCount--
    if (seq <= this.#fetchedSeq) return this.#pull()
    if (seq !== this.#receivedSeq + 1) return this.#missed(seq)
    this.#holeCount = 0
    this.#take(seq, message.data)
    this.#pull()
  }

  /** The next entry. */
  #take(seq: number, bytes: Uint8Array): void {
    let entry: DecodedEntry
    try {
      entry = decodeEntry(bytes)
    } catch (failure) {
      const { code, detail } = failure as IMError
      return this.#endBefore(new IMError(code, { detail: `${this.#options.log} ${seq}: ${detail}`, cause: failure }))
    }
    this.#receivedSeq = seq
    this.#applier.add({ seq, entry, bytes: bytes.length })
  }

  /** An entry has been lost on its way, and the next consumer brings it; or it is not in the stream at all. */
  #missed(seq: number): void {
    if (++this.#holeCount === 1) this.#holeSinceMs = performance.now()
    if (this.#holeCount < MAX_HOLE_COUNT || performance.now() - this.#holeSinceMs < HOLE_AFTER_MS) return this.#waiting.wake()
    const detail = `stream ${this.#options.log} goes on with ${seq}, and this node has applied ${this.#receivedSeq}`
    this.#endBefore(new IMError('IM_LOG_GAP', { detail }))
  }

  /** What has arrived before is applied; nothing behind it is. */
  #endBefore(error: IMError): void {
    this.#isAtEnd = true
    this.#waiting.wake()
    this.#applier.end(error)
  }

  /** What the server says about the pull, or the consumer. */
  #told(status: number, description: string): void {
    if (status === 100) return
    if (/batch completed/i.test(description)) return // of a pull of which everything has been counted, and perhaps of the one before
    const isEndOfPull = status === 408 || (status === 409 && /max_?bytes|max_?waiting/i.test(description))
    if (!isEndOfPull) return this.#waiting.wake()
    this.#pulledCount = 0
    this.#pull()
  }
}

/** Number in the stream, from `$JS.ACK.…`: 9 parts, or 12 of servers that name domain and account. */
function placeOf(reply: string | undefined): number {
  const parts = (reply ?? '').split('.')
  return Number(parts[parts.length > 9 ? 7 : 5])
}

/** Resolves with `over`, and after `ms` at the latest. */
async function within(ms: number, over: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([over, new Promise((resolve) => (timer = setTimeout(resolve, ms)))])
  clearTimeout(timer)
}
