/**
 * Who is connected where, in a Redis that all nodes share. Power loss of a node: its entries are out of every answer after
 * three heartbeats, by the clock of Redis alone, and are removed piece by piece by the nodes that live. A Redis that has
 * lost what it knew, or is another one after a failover, is told again by each node what it holds. A slow Redis makes calls
 * fail after `commandTimeoutMs`.
 */
import { randomBytes } from 'node:crypto'
import type { Redis } from 'ioredis'
import type { Presence, PresenceEntry } from '../../contracts/presence.ts'
import { IMError } from '../../errors.ts'
import { isLoss, Obstacle, redisFailure } from './failures.ts'
import type { RedisLink } from './link.ts'
import { NodeRecord, type Unwritten } from './node-record.ts'
import { ADD, BEAT, ESTABLISH, LEAVE, LOCATE, REMOVE, SWEEP, type Script } from './scripts.ts'

export interface RedisPresenceOptions {
  readonly link: RedisLink
  readonly prefix: string
  readonly firstHeartbeatMs: number
  readonly report: (error: IMError) => void
}

/** An interval is missed when it has passed without a heartbeat; a node that missed this many is taken for dead. */
const MISSED_HEARTBEATS = 3

/**
 * A node that has not called `heartbeat` for so many intervals was silent itself, and announces its connections again. A little
 * more than three, so that the caller, whose own reckoning comes first, never takes for heard what is forgotten here.
 */
const SILENT_INTERVALS = 3.25

/** In one question; Redis does nothing else meanwhile. */
const MAX_UIDS = 1_000
/** Entries that are written, and removed, in one step. */
const MAX_ENTRIES = 200
/** How often in a row Redis may forget a node that is just being written: somebody else writes under the same node id. */
const MAX_FORGOTTEN = 3
/** Steps of removing what dead nodes have left, for each heartbeat. */
const MAX_SWEEPS = 20

export class RedisPresence implements Presence {
  readonly #options: RedisPresenceOptions
  readonly #keys: readonly string[]
  readonly #indexPrefix: string
  readonly #nodes = new Map<number, NodeRecord>()
  #isSweeping = false

  constructor(options: RedisPresenceOptions) {
    this.#options = options
    const { prefix } = options
    this.#keys = stateKeys(prefix)
    this.#indexPrefix = `${prefix}node:`
  }

  async online(entry: PresenceEntry): Promise<void> {
    const { uid, nodeID, connectionID, deviceFlag, deviceLevel } = entry
    const node = this.#nodeFor(nodeID)
    this.#noticeSilence(node)
    const held = { uid, nodeID, connectionID, deviceFlag, deviceLevel }
    const earlier = node.entries.get(connectionID)
    node.entries.set(connectionID, held)
    try {
      const moved = earlier !== undefined && earlier.uid !== uid ? this.#remove(node, earlier) : undefined
      moved?.catch(() => undefined) // it may fail while something else has failed already
      await new Promise<void>((resolve, reject) => {
        const waiting = [...(node.unwritten.get(connectionID)?.waiting ?? []), { resolve, reject }]
        node.unwritten.set(connectionID, { entry: held, waiting })
        void this.#write(node)
      })
      await moved
    } catch (error) {
      if (node.entries.get(connectionID) === held) node.entries.delete(connectionID)
      throw this.#failure(error, nodeID)
    }
  }

  async offline(entry: PresenceEntry): Promise<void> {
    const node = this.#nodes.get(entry.nodeID)
    if (node === undefined) return // nothing has been announced, or `leave` has forgotten it
    const held = node.entries.get(entry.connectionID) ?? entry // it may be there although `online` has failed
    node.entries.delete(entry.connectionID)
    // An announcement that has not left yet need not leave any more.
    for (const { resolve } of node.unwritten.get(entry.connectionID)?.waiting ?? []) resolve()
    node.unwritten.delete(entry.connectionID)
    try {
      await this.#remove(node, held)
    } catch (error) {
      throw this.#failure(error, entry.nodeID)
    }
  }

  async locate(uids: readonly string[]): Promise<ReadonlyMap<string, readonly number[]>> {
    const located = new Map<string, readonly number[]>()
    for (const [uid, entries] of await this.#entriesOf(uids)) {
      const nodeIDs = new Set(entries.map(({ nodeID }) => nodeID))
      if (nodeIDs.size > 0) located.set(uid, [...nodeIDs].sort((a, b) => a - b))
    }
    return located
  }

  async devices(uid: string): Promise<readonly PresenceEntry[]> {
    return (await this.#entriesOf([uid])).get(uid) ?? []
  }

  async heartbeat(nodeID: number, intervalMs: number): Promise<void> {
    const node = this.#nodeFor(nodeID)
    this.#noticeSilence(node)
    node.beatAtMs = performance.now()
    node.intervalMs = intervalMs
    try {
      if (node.isStale) await this.#restore(node)
      // Redis may have lost what it knew without having been away.
      if (!(await this.#run(BEAT, node.id, node.epoch, MISSED_HEARTBEATS * intervalMs))) await this.#restore(node)
    } catch (error) {
      throw this.#failure(error, nodeID)
    }
    this.#sweep()
  }

  async leave(nodeID: number): Promise<void> {
    this.#nodes.delete(nodeID)
    try {
      await this.#run(LEAVE, String(nodeID))
    } catch (error) {
      throw this.#failure(error, nodeID)
    }
  }

  /** Redis has been started anew, or is another one: it may know nothing of the nodes here, or what was true long ago. */
  serverChanged(): void {
    for (const node of this.#nodes.values()) {
      this.#restore(node).catch(() => undefined) // what fails is tried again with the next heartbeat
    }
  }

  #nodeFor(nodeID: number): NodeRecord {
    let node = this.#nodes.get(nodeID)
    if (node === undefined) this.#nodes.set(nodeID, (node = new NodeRecord(String(nodeID))))
    return node
  }

  #noticeSilence(node: NodeRecord): void {
    if (node.beatAtMs === undefined || performance.now() - node.beatAtMs < SILENT_INTERVALS * node.intervalMs) return
    node.forget()
  }

  /** Begin a new life of the node, in which Redis knows all of its entries and no others. */
  async #restore(node: NodeRecord): Promise<void> {
    node.isStale = true
    await this.#write(node)
    if (node.isStale) throw new Obstacle('Redis could not be told what this node holds')
  }

  /** Write what is unwritten: what comes while a batch is on its way goes with the next one. Never rejects. */
  #write(node: NodeRecord): Promise<void> {
    return (node.writing ??= this.#writeAll(node))
  }

  async #writeAll(node: NodeRecord): Promise<void> {
    await Promise.resolve() // what is announced in the same turn goes with the first batch
    try {
      let forgottenCount = 0
      do {
        if (node.isStale && !(await this.#establish(node))) return
        const batch = node.takeUnwritten(MAX_ENTRIES)
        const outcome = batch.length === 0 ? 'written' : await this.#tryAdd(node, batch)
        if (outcome === 'written') {
          for (const { waiting } of batch) for (const { resolve } of waiting) resolve()
        } else if (outcome === 'forgotten' && ++forgottenCount < MAX_FORGOTTEN) {
          node.isStale = true
          node.putBack(batch)
        } else if (!this.#failed(node, batch, outcome)) return
      } while (node.unwritten.size > 0 || node.isStale)
    } finally {
      node.writing = undefined // in the same turn as the last look at what is unwritten
    }
  }

  /** @returns false when Redis does not know all of the node any more: the next life does */
  #failed(node: NodeRecord, batch: readonly Unwritten[], outcome: 'forgotten' | Error): boolean {
    const reason = outcome === 'forgotten' ? new Obstacle('Redis forgets this node again and again') : outcome
    for (const { waiting } of batch) for (const { reject } of waiting) reject(reason)
    // What nobody waits for would otherwise be missed by nobody.
    if (outcome !== 'forgotten' && batch.every(({ waiting }) => waiting.length > 0)) return true
    node.isStale = true
    node.rejectAll(reason)
    return false
  }

  /** Tell Redis of a new life, of which everything is unwritten. When that fails, so does everybody who waits. */
  async #establish(node: NodeRecord): Promise<boolean> {
    const { firstHeartbeatMs } = this.#options
    const lifeMs = node.intervalMs > 0 ? MISSED_HEARTBEATS * node.intervalMs : firstHeartbeatMs
    const epoch = (node.epoch = randomBytes(9).toString('base64url'))
    for (const entry of node.entries.values()) {
      if (!node.unwritten.has(entry.connectionID)) node.unwritten.set(entry.connectionID, { entry, waiting: [] })
    }
    node.isStale = false // from here on what comes is written, or makes it stale again
    try {
      if (this.#nodes.get(Number(node.id)) !== node) throw new Obstacle('the node has left')
      await this.#run(ESTABLISH, node.id, epoch, lifeMs)
      return true
    } catch (error) {
      node.isStale = true
      node.rejectAll(error as Error)
      return false
    }
  }

  async #tryAdd(node: NodeRecord, batch: readonly Unwritten[]): Promise<'written' | 'forgotten' | Error> {
    try {
      return (await this.#add(node, batch.map(({ entry }) => entry))) ? 'written' : 'forgotten'
    } catch (error) {
      return error as Error
    }
  }

  async #add(node: NodeRecord, entries: readonly PresenceEntry[]): Promise<boolean> {
    const rows = entries.map((entry) => [entry.connectionID, entry.uid, entry.deviceFlag, entry.deviceLevel, memberOf(entry)])
    return (await this.#run(ADD, node.id, node.epoch, JSON.stringify(rows))) === 1
  }

  async #remove(node: NodeRecord, entry: PresenceEntry): Promise<void> {
    await this.#run(REMOVE, node.id, node.epoch, entry.connectionID, entry.uid, memberOf(entry))
  }

  /** Remove some of what dead nodes have left, beside everything else. */
  #sweep(): void {
    if (this.#isSweeping) return
    this.#isSweeping = true
    this.#sweepSteps()
      .catch((error: unknown) => {
        // That Redis cannot be reached is told by the link, and the next heartbeat goes on.
        if (!(error instanceof Obstacle) && !isLoss(error)) this.#options.report(redisFailure('IM_PRESENCE_UNAVAILABLE', error))
      })
      .finally(() => (this.#isSweeping = false))
  }

  async #sweepSteps(): Promise<void> {
    for (let step = 0; step < MAX_SWEEPS; step++) {
      if ((await this.#run(SWEEP, MAX_ENTRIES)) !== 1) return
    }
  }

  /** The entries of live nodes, of every uid that is known to Redis. */
  async #entriesOf(uids: readonly string[]): Promise<ReadonlyMap<string, PresenceEntry[]>> {
    const found = new Map<string, PresenceEntry[]>()
    const distinct = [...new Set(uids)]
    const chunks: string[][] = []
    for (let start = 0; start < distinct.length; start += MAX_UIDS) chunks.push(distinct.slice(start, start + MAX_UIDS))
    try {
      // Sent one behind the other without waiting: one round trip, and between two of them Redis does other work.
      const answers = await Promise.all(chunks.map((chunk) => this.#ask(LOCATE, ...chunk)))
      for (const [index, answer] of answers.entries()) {
        const [time, records, values] = answer as [string, string[], (string | null)[]]
        const live = liveEpochs(Number(time), records)
        values.forEach((text, at) => {
          if (text !== null) found.set(chunks[index]![at]!, this.#parse(chunks[index]![at]!, text, live))
        })
      }
    } catch (error) {
      throw redisFailure('IM_PRESENCE_UNAVAILABLE', error)
    }
    return found
  }

  #parse(uid: string, text: string, live: ReadonlyMap<number, string>): PresenceEntry[] {
    const entries: PresenceEntry[] = []
    let rows: unknown
    try {
      rows = JSON.parse(text)
    } catch {
      rows = undefined
    }
    if (!Array.isArray(rows)) {
      this.#options.report(new IMError('IM_PRESENCE_UNAVAILABLE', { detail: 'an entry in Redis cannot be read', context: { uid } }))
      return entries
    }
    for (const row of rows as unknown[]) {
      if (!Array.isArray(row)) continue
      const [nodeID, epoch, connectionID, deviceFlag, deviceLevel] = row as unknown[]
      if (typeof nodeID !== 'number' || live.get(nodeID) !== epoch) continue
      if (typeof connectionID !== 'string' || typeof deviceFlag !== 'number' || typeof deviceLevel !== 'number') continue
      entries.push({ uid, nodeID, connectionID, deviceFlag, deviceLevel })
    }
    return entries
  }

  #run(script: Script, ...values: (string | number)[]): Promise<unknown> {
    return this.#options.link.run((client) => runScript(client, script, this.#keys, [this.#indexPrefix, ...values]))
  }

  #ask(script: Script, ...values: string[]): Promise<unknown> {
    return this.#options.link.ask((client) => runScript(client, script, this.#keys, [this.#indexPrefix, ...values]))
  }

  #failure(error: unknown, nodeID: number): IMError {
    return redisFailure('IM_PRESENCE_UNAVAILABLE', error, { nodeID })
  }
}

/** The nodes' records, the users who are online, and the lives of nodes that are over and have left entries. */
export function stateKeys(prefix: string): readonly string[] {
  return [`${prefix}nodes`, `${prefix}user:online`, `${prefix}orphans`]
}

/** The life of every node that has not been silent for too long, from its record `epoch|deadline`. */
export function liveEpochs(timeMs: number, records: readonly string[]): Map<number, string> {
  const live = new Map<number, string>()
  for (let index = 0; index + 1 < records.length; index += 2) {
    const [epoch = '', deadline] = records[index + 1]!.split('|')
    if (Number(deadline) > timeMs) live.set(Number(records[index]), epoch)
  }
  return live
}

export async function runScript(client: Redis, script: Script, keys: readonly string[], values: readonly (string | number | Buffer)[]): Promise<unknown> {
  try {
    return await client.evalsha(script.sha, keys.length, ...keys, ...values)
  } catch (error) {
    // It is loaded on every new connection; somebody has flushed the scripts since.
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
    return await client.eval(script.lua, keys.length, ...keys, ...values)
  }
}

/** A connection in its node's index. */
function memberOf({ connectionID, uid }: PresenceEntry): string {
  return JSON.stringify([connectionID, uid])
}
