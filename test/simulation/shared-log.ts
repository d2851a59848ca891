import { IMError, type AppendResult, type ChannelKey, type LogEntry, type Message, type Replicator, type ReplicatorHost } from 'imengine'
import { FAIR, type Network } from './network.ts'
import type { Chance } from './chance.ts'

type Entry = { readonly proposal: object } & ({ readonly messages: LogEntry } | { readonly operation: Uint8Array })

const LOG = 'log'
const RETRY_MS = 100

/**
 * A log that all nodes have in common, on servers that never fail; the way there and back may. What a node proposes arrives in
 * the order in which it was proposed, or never. What has arrived is committed, and every node applies it in order, from the
 * place that its own store knows.
 */
export class SharedLog {
  readonly entries: Entry[] = []
  readonly network: Network
  readonly chance: Chance
  readonly followers = new Set<LogNode>()

  constructor(network: Network, chance: Chance) {
    this.network = network
    this.chance = chance
  }

  append(entry: Entry): void {
    this.entries.push(entry)
    for (const follower of this.followers) follower.wake()
  }
}

/** What one life of a node has of it. */
export class LogNode implements Replicator {
  readonly #log: SharedLog
  readonly #waiters = new Map<object, (result: unknown) => void>()
  #host: ReplicatorHost | undefined
  /** undefined until the store has been asked */
  #appliedCount: number | undefined
  #isApplying = false
  #applying: Promise<void> = Promise.resolve()
  #isDead = false
  #lastArrivalMs = 0

  constructor(log: SharedLog) {
    this.#log = log
  }

  async start(host: ReplicatorHost): Promise<void> {
    this.#host = host
    this.#appliedCount = await host.logPosition!(LOG)
    if (this.#isDead) return
    this.#log.followers.add(this)
    this.wake()
  }

  propose(key: ChannelKey, messages: readonly Message[], signal: AbortSignal): Promise<readonly AppendResult[]> {
    const entry = { key: { ...key }, messages: messages.map((message) => ({ ...message })), nodeID: this.#host!.nodeID }
    return this.#propose((proposal) => ({ proposal, messages: entry }), signal) as Promise<readonly AppendResult[]>
  }

  operate(_lane: string, operation: Uint8Array, signal: AbortSignal): Promise<unknown> {
    const copy = operation.slice()
    return this.#propose((proposal) => ({ proposal, operation: copy }), signal)
  }

  /** What is being applied comes to its end: the engine closes its store next. */
  async close(): Promise<void> {
    this.crash()
    await this.#applying
  }

  crash(): void {
    this.#isDead = true
    this.#log.followers.delete(this)
    this.#waiters.clear()
  }

  /** There may be something to apply. */
  wake(): void {
    if (this.#isApplying || this.#isDead || this.#appliedCount === undefined) return
    const entry = this.#log.entries[this.#appliedCount]
    if (entry === undefined) return
    this.#isApplying = true
    const { mostMs, losing } = this.#weather
    this.#later(losing === 1 ? RETRY_MS : this.#log.chance.between(0, mostMs), () => {
      if (this.#weather.losing === 1) return this.#again() // cut off: nothing arrives
      this.#applying = this.#apply(entry, this.#appliedCount! + 1)
    })
  }

  get #weather(): typeof FAIR {
    return this.#log.network.weather.get(this.#host!.nodeID) ?? FAIR
  }

  async #apply(entry: Entry, index: number): Promise<void> {
    const position = { log: LOG, index }
    try {
      const result = 'operation' in entry ? await this.#host!.operate(entry.operation, position) : (await this.#host!.apply([entry.messages], position))[0]
      if (this.#isDead) return
      this.#appliedCount = index
      this.#waiters.get(entry.proposal)?.(result)
      this.#again()
    } catch {
      this.#later(RETRY_MS, () => this.#again())
    }
  }

  #again(): void {
    this.#isApplying = false
    this.wake()
  }

  #later(delayMs: number, run: () => void): void {
    this.#log.network.time.after(delayMs, () => {
      if (!this.#isDead) run()
    })
  }

  #propose(entryOf: (proposal: object) => Entry, signal: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const proposal = {}
      const nodeID = this.#host!.nodeID
      const onAbort = (): void => {
        this.#waiters.delete(proposal)
        reject(new IMError('IM_REPLICATION_TIMEOUT', { cause: signal.reason, context: { nodeID } }))
      }
      if (signal.aborted) return onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      this.#waiters.set(proposal, (result) => {
        signal.removeEventListener('abort', onAbort)
        this.#waiters.delete(proposal)
        resolve(result)
      })
      const { time } = this.#log.network
      const { losing, mostMs } = this.#weather
      if (this.#log.chance.happens(losing)) return
      this.#lastArrivalMs = Math.max(this.#lastArrivalMs, time.nowMs + this.#log.chance.between(0, mostMs))
      // Once it has left, it arrives, whatever becomes of the node.
      time.after(this.#lastArrivalMs - time.nowMs, () => this.#log.append(entryOf(proposal)))
    })
  }
}
