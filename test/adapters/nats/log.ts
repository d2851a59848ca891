import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { ClusterConnection } from '../../../src/adapters/nats/connection.ts'
import type { LogProblem, NatsLogOptions } from '../../../src/adapters/nats/log-options.ts'
import { NatsReplicator } from '../../../src/adapters/nats/replicator.ts'
import type { AppendResult, MessageStore } from '../../../src/contracts/message-store.ts'
import { IMError } from '../../../src/errors.ts'
import { channelKeyString, type ChannelKey } from '../../../src/model/channel.ts'
import type { Message } from '../../../src/model/message.ts'
import { memoryMessageStore } from '../../../src/adapters/memory/index.ts'
import { until } from './servers.ts'

/** A name that no other log on the servers has. */
export const logName = (): string => `t${randomUUID().slice(0, 8)}`

export function connectionTo(servers: readonly string[], over: Partial<ClusterConnection['options']> = {}): ClusterConnection {
  return new ClusterConnection({
    servers,
    clientName: 'imengine test',
    connectTimeoutMs: 1_000,
    reconnectPauseMs: 50,
    pingIntervalMs: 500,
    ...over,
  })
}

export function replicatorOn(servers: readonly string[], options: NatsLogOptions): NatsReplicator {
  return new NatsReplicator(connectionTo(servers), options)
}

export const room = (channelID: string): ChannelKey => ({ channelID, channelType: 2 })

let lastID = 1_000n

/** A new message of its own id, and of its own number unless told. */
export function message(key: ChannelKey, clientMsgNo = `no-${lastID}`, payload: Uint8Array = Buffer.from(clientMsgNo)): Message {
  const rest = { messageSeq: 0, fromUID: 'ann', timestampMs: 1_700_000_000_000, expireSec: 0, topic: '', setting: 0 }
  return { messageID: String(++lastID), clientMsgNo, payload, ...key, ...rest, noPersist: false, redDot: true, syncOnce: false }
}

export interface LogNodeOptions extends NatsLogOptions {
  readonly nodeID: number
  readonly servers: readonly string[]
  readonly store?: MessageStore
  /** runs before every apply; a promise holds it up */
  readonly beforeApply?: () => Promise<void> | void
}

/** A store under a log. */
export class LogNode {
  readonly store: MessageStore
  readonly replicator: NatsReplicator
  readonly problems: LogProblem[] = []
  readonly operated: string[] = []
  snapshot: (() => AsyncIterable<Uint8Array>) | undefined
  restore: ((chunks: AsyncIterable<Uint8Array>) => Promise<void>) | undefined
  readonly isolations: boolean[] = []
  applyCount = 0
  settleCount = 0
  readonly #options: LogNodeOptions

  constructor(options: LogNodeOptions) {
    this.#options = options
    this.store = options.store ?? memoryMessageStore({ maxMessagesPerChannel: 1_000_000, maxMessages: 10_000_000 })
    this.replicator = replicatorOn(options.servers, { onProblem: (problem) => void this.problems.push(problem), ...options })
  }

  async start(): Promise<this> {
    const { store } = this
    await this.replicator.start({
      nodeID: this.#options.nodeID,
      logPosition: (log) => store.logPosition!(log),
      operate: async (operation, position) => {
        const text = Buffer.from(operation).toString()
        if (text === 'unreadable') throw new IMError('IM_LOG_FORMAT', { detail: 'the test' })
        this.operated.push(text)
        await store.append([], position)
        return `${this.#options.nodeID} ${text}`
      },
      settle: () => void this.settleCount++,
      ...(this.snapshot !== undefined && { snapshot: this.snapshot }),
      ...(this.restore !== undefined && { restore: this.restore }),
      isolated: (isIsolated) => void this.isolations.push(isIsolated),
      apply: async (entries, position) => {
        this.applyCount++
        await this.#options.beforeApply?.()
        return store.append(entries, position)
      },
    })
    return this
  }

  async propose(key: ChannelKey, messages: readonly Message[], timeoutMs = 5_000): Promise<readonly AppendResult[]> {
    return this.replicator.propose(key, messages, AbortSignal.timeout(timeoutMs))
  }

  /** the numbers its senders gave to the messages of a channel, in seq order; seqs run without a gap */
  async numbersIn(key: ChannelKey): Promise<string[]> {
    const found: Message[] = []
    for (;;) {
      const page = await this.store.range(key, { startSeq: found.length + 1, limit: 10_000 })
      found.push(...page)
      if (page.length < 10_000) break
    }
    expect(found.map(({ messageSeq }) => messageSeq)).toEqual(found.map((_, i) => i + 1))
    return found.map(({ clientMsgNo }) => clientMsgNo)
  }

  get appliedIndexes(): number[] {
    return this.replicator.status().partitions.map(({ appliedIndex }) => appliedIndex)
  }

  close(): Promise<void> {
    return this.replicator.close()
  }
}

/** Wait until all of them have applied what any of them has heard of. */
export async function settled(nodes: readonly LogNode[], timeoutMs = 20_000): Promise<void> {
  const stateOf = (): string => JSON.stringify(nodes.map(({ replicator }) => replicator.status()))
  await until(
    () => {
      const known = nodes.map(({ replicator }) => replicator.status().partitions)
      const last = known[0]!.map((_, i) => Math.max(...known.map((partitions) => partitions[i]!.lastIndex)))
      return nodes.every((node) => node.appliedIndexes.every((index, i) => index >= last[i]!))
    },
    timeoutMs,
    'not all nodes have applied everything',
  ).catch((error: unknown) => {
    throw new Error(`${(error as Error).message}: ${stateOf()}`)
  })
}

/** Every channel has the same messages with the same numbers everywhere, without a gap and each once. @returns them by channel */
export async function expectEqualStores(nodes: readonly LogNode[], keys: readonly ChannelKey[]): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>()
  for (const key of keys) {
    const [first = [], ...others] = await Promise.all(nodes.map((node) => node.numbersIn(key)))
    for (const other of others) expect(other).toEqual(first)
    expect(new Set(first).size).toBe(first.length)
    found.set(channelKeyString(key), first)
  }
  return found
}
