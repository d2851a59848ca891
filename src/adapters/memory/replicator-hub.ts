/**
 * A totally ordered log in this process's memory, for several engines in one process: tests, simulations, examples of a
 * cluster. Power loss, and the end of the process, lose the log. A slow host holds up nobody else until it is `maxEntries`
 * behind; then proposals are refused. `close` of a replicator stops its host from applying; the others go on.
 */
import type { WaitSignal } from '../../contracts/abort-group.ts'
import type { Clock } from '../../contracts/clock.ts'
import type { AppendResult } from '../../contracts/message-store.ts'
import type { LogEntry, Replicator, ReplicatorHost } from '../../contracts/replicator.ts'
import { badOption, IMError } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'

export interface MemoryReplicatorHubOptions {
  /**
   * default 10 000: how many entries the log holds. A host that has this many still to apply makes `propose` reject with
   * IM_QUEUE_FULL; a node that was away for longer cannot start again.
   */
  readonly maxEntries?: number
  /** default 50: how long to wait before an entry that a host failed to apply is given to it again */
  readonly retryDelayMs?: number
  /** where that wait is done; default the system's timers */
  readonly clock?: Pick<Clock, 'setTimer' | 'clearTimer'>
}

/** Hands out the replicators that share one log: one for each engine. */
export interface MemoryReplicatorHub {
  replicator(): Replicator
}

/**
 * An entry is committed as soon as it is proposed, and every started host is given the entries in log order, one after the
 * other, never within the proposer's own call. A node that starts for the first time begins with the oldest entry; one that
 * comes back goes on where it stopped. An entry whose `apply` fails is given again until it succeeds: to skip it would make
 * the nodes differ.
 */
export function memoryReplicatorHub(options: MemoryReplicatorHubOptions = {}): MemoryReplicatorHub {
  const log = new SharedLog(options.maxEntries ?? 10_000)
  const pause = { clock: options.clock ?? systemTimers, delayMs: options.retryDelayMs ?? 50 }
  return { replicator: () => new MemoryReplicator(log, pause) }
}

const systemTimers: Pick<Clock, 'setTimer' | 'clearTimer'> = {
  setTimer: (delayMs, fire) => setTimeout(fire, delayMs),
  clearTimer: (timer) => clearTimeout(timer as NodeJS.Timeout),
}

interface RetryPause {
  readonly clock: Pick<Clock, 'setTimer' | 'clearTimer'>
  readonly delayMs: number
}

/** What is in the log: messages, or an operation on the rest. */
type HubEntry = LogEntry | { readonly operation: Uint8Array }

/** What the replicators share. Invariant: entry `i` of `#entries` is number `#firstIndex + i` of the log. */
class SharedLog {
  #entries: HubEntry[] = []
  #firstIndex = 0
  readonly #maxEntries: number
  /** the number of the next entry a node has to apply, for every node that ever started */
  readonly positions = new Map<number, number>()
  readonly started = new Map<number, MemoryReplicator>()

  constructor(maxEntries: number) {
    if (!Number.isSafeInteger(maxEntries) || maxEntries < 1) badOption('maxEntries', 'a positive integer', maxEntries)
    this.#maxEntries = maxEntries
  }

  get firstIndex(): number {
    return this.#firstIndex
  }

  get endIndex(): number {
    return this.#firstIndex + this.#entries.length
  }

  at(index: number): HubEntry | undefined {
    return this.#entries[index - this.#firstIndex]
  }

  /** Never backwards: a host that was closed in mid-apply may answer when its node has started again. */
  applied(nodeID: number, index: number): void {
    this.positions.set(nodeID, Math.max(index + 1, this.positions.get(nodeID) ?? 0))
  }

  /** @returns the number of the new entry @throws IM_QUEUE_FULL when a started host still has to apply the oldest one */
  append(entry: HubEntry): number {
    if (this.#entries.length >= this.#maxEntries) this.#dropApplied()
    const index = this.endIndex
    this.#entries.push(entry)
    for (const replicator of this.started.values()) replicator.wake()
    return index
  }

  #dropApplied(): void {
    let appliedEnd = this.endIndex
    for (const nodeID of this.started.keys()) appliedEnd = Math.min(appliedEnd, this.positions.get(nodeID) ?? 0)
    if (appliedEnd <= this.#firstIndex) throw new IMError('IM_QUEUE_FULL', { detail: 'a host does not keep up with the log' })
    // A quarter at a time, so that a full log does not move its entries for every new one.
    const dropCount = Math.min(appliedEnd - this.#firstIndex, Math.ceil(this.#maxEntries / 4))
    this.#entries = this.#entries.slice(dropCount)
    this.#firstIndex += dropCount
  }
}

interface Waiter {
  resolve(result: unknown): void
  reject(error: IMError): void
}

class MemoryReplicator implements Replicator {
  readonly #log: SharedLog
  readonly #retryPause: RetryPause
  readonly #waiters = new Map<number, Waiter>()
  #host: ReplicatorHost | undefined
  #applying: Promise<void> | undefined
  #isApplying = false
  #endPause: (() => void) | undefined

  constructor(log: SharedLog, retryPause: RetryPause) {
    this.#log = log
    this.#retryPause = retryPause
  }

  start(host: ReplicatorHost): void {
    if (this.#host !== undefined) throw new TypeError('imengine: this replicator has been started already')
    if (this.#log.started.has(host.nodeID)) badOption('nodeID', 'one that no other started replicator has', host.nodeID)
    const position = this.#log.positions.get(host.nodeID) ?? 0
    if (position < this.#log.firstIndex) {
      throw new IMError('IM_REPLICATION_TIMEOUT', {
        detail: 'the log no longer has what this node missed',
        context: { nodeID: host.nodeID },
      })
    }
    this.#log.positions.set(host.nodeID, position)
    this.#log.started.set(host.nodeID, this)
    this.#host = host
    this.wake()
  }

  propose(key: ChannelKey, messages: readonly Message[], signal: WaitSignal): Promise<readonly AppendResult[]> {
    const { channelID, channelType } = key
    // The messages themselves never change; the array is the caller's.
    return this.#add((nodeID) => ({ key: { channelID, channelType }, messages: [...messages], nodeID }), signal) as Promise<readonly AppendResult[]>
  }

  operate(_lane: string, operation: Uint8Array, signal: WaitSignal): Promise<unknown> {
    return this.#add(() => ({ operation: operation.slice() }), signal)
  }

  /** @returns what the host made of it */
  #add(entryOf: (nodeID: number) => HubEntry, signal: WaitSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const host = this.#host
      if (host === undefined) throw new IMError('IM_NOT_RUNNING', { detail: 'the replicator is not started' })
      if (signal.aborted) throw gaveUp(host, signal.reason)
      const index = this.#log.append(entryOf(host.nodeID))
      const onAbort = (): void => this.#take(index)?.reject(gaveUp(host, signal.reason))
      signal.addEventListener('abort', onAbort, { once: true })
      const settled = (): void => signal.removeEventListener('abort', onAbort)
      this.#waiters.set(index, {
        resolve: (result) => (settled(), resolve(result)),
        reject: (error) => (settled(), reject(error)),
      })
    })
  }

  async close(): Promise<void> {
    const host = this.#host
    if (host === undefined) return
    this.#host = undefined
    this.#log.started.delete(host.nodeID)
    const error = gaveUp(host, 'closed before it was applied here')
    for (const index of [...this.#waiters.keys()]) this.#take(index)?.reject(error)
    this.#endPause?.()
    await this.#applying
  }

  /** There may be something to apply. */
  wake(): void {
    if (this.#isApplying) return
    this.#isApplying = true
    this.#applying = this.#applyAll()
  }

  async #applyAll(): Promise<void> {
    await Promise.resolve() // never within the proposer's own call
    for (let next = this.#next(); next !== undefined; next = this.#next()) await this.#applyOne(next)
    // Nothing was awaited since the last look at the log, so no `wake` can have come in between and been ignored.
    this.#isApplying = false
  }

  #next(): { host: ReplicatorHost; index: number; entry: HubEntry } | undefined {
    if (this.#host === undefined) return undefined
    const index = this.#log.positions.get(this.#host.nodeID) ?? 0
    const entry = this.#log.at(index)
    return entry === undefined ? undefined : { host: this.#host, index, entry }
  }

  async #applyOne({ host, index, entry }: { host: ReplicatorHost; index: number; entry: HubEntry }): Promise<void> {
    try {
      const result = 'operation' in entry ? await host.operate(entry.operation) : (await host.apply([entry]))[0]
      this.#log.applied(host.nodeID, index)
      this.#take(index)?.resolve(result)
    } catch {
      // The host reports its own failures; here the entry only stays where it is.
      if (this.#host !== undefined) await this.#pause()
    }
  }

  /** Wait before the next try, or until the replicator is closed. */
  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const { clock, delayMs } = this.#retryPause
      const timer = clock.setTimer(delayMs, () => this.#endPause?.())
      this.#endPause = () => {
        clock.clearTimer(timer)
        this.#endPause = undefined
        resolve()
      }
    })
  }

  #take(index: number): Waiter | undefined {
    const waiter = this.#waiters.get(index)
    this.#waiters.delete(index)
    return waiter
  }
}

function gaveUp(host: ReplicatorHost, cause: unknown): IMError {
  return new IMError('IM_REPLICATION_TIMEOUT', { cause, context: { nodeID: host.nodeID } })
}
