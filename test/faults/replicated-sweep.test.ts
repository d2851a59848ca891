import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { levelStorage } from '../../src/adapters/level/index.ts'
import { memoryStorage } from '../../src/adapters/memory/index.ts'
import type { AppendResult } from '../../src/contracts/message-store.ts'
import type { Storage } from '../../src/contracts/storage.ts'
import type { ChannelKey } from '../../src/model/channel.ts'
import type { Message } from '../../src/model/message.ts'
import { ReplicatedStorage } from '../../src/services/replicated-storage.ts'
import { FakeClock, sampleMessage } from '../../src/testing/index.ts'
import { WatchedLevel } from '../adapters/level/watched-level.ts'

/** One seed, so that a run can be repeated; `FUZZ_SEED=7 npx vitest run test/faults` looks elsewhere. */
const seed = Number(process.env['FUZZ_SEED'] ?? 20_260_101)

const ROOMS = ['a', 'b'].map((channelID) => ({ channelID, channelType: 2 }))
const NOW_MS = 1_700_000_000_000
const SMALL = { maxCachedChannels: 1, maxCachedValues: 100, dedupeFilterBytes: 4_096 }

/** What nodes agree on, in order: messages of one channel, or an operation. */
type Entry = { readonly key: ChannelKey; readonly messages: readonly Message[] } | Uint8Array

/** Nodes over one log: what one of them proposes is in it at once, and each comes to it when it is told to. */
class Cluster {
  readonly clock = new FakeClock({ nowMs: NOW_MS })
  readonly log: Entry[] = []
  readonly nodes: Node[] = []

  async add(storage: Storage): Promise<Node> {
    await storage.open?.()
    const node = new Node(this, storage)
    this.nodes.push(node)
    return node
  }
}

class Node {
  readonly storage: ReplicatedStorage
  readonly results: AppendResult[] = []
  readonly own: Storage
  readonly #cluster: Cluster
  #appliedCount = 0
  #answers: unknown[] = []

  constructor(cluster: Cluster, own: Storage) {
    this.#cluster = cluster
    this.own = own
    const propose = async (_lane: string, operation: Uint8Array): Promise<unknown> => {
      const place = cluster.log.push(operation) - 1
      await this.apply(Infinity, 1)
      return this.#answers[place]
    }
    this.storage = new ReplicatedStorage({ storage: own, clock: cluster.clock, propose, logOf: () => 'log', applying: () => undefined, ending: () => 0 })
  }

  /** Come up to `end` entries, up to `atOnce` batches of messages in one call. */
  async apply(end: number, atOnce: number): Promise<void> {
    const { log } = this.#cluster
    while (this.#appliedCount < Math.min(end, log.length)) {
      const entry = log[this.#appliedCount]!
      if (entry instanceof Uint8Array) {
        this.#appliedCount++
        this.#answers[this.#appliedCount - 1] = await this.storage.apply(entry, { log: 'log', index: this.#appliedCount })
        continue
      }
      const batches = []
      for (let next = log[this.#appliedCount]; next !== undefined && !(next instanceof Uint8Array) && batches.length < atOnce; next = log[++this.#appliedCount]) {
        batches.push(next)
        if (this.#appliedCount + 1 >= end) {
          this.#appliedCount++
          break
        }
      }
      const results = await this.storage.messages.append(batches, { log: 'log', index: this.#appliedCount })
      this.results.push(...results.flat())
    }
  }

  async all(): Promise<unknown> {
    return Promise.all(
      ROOMS.map(async (key) => {
        const { messages } = this.own
        const found = (await messages.range(key, { limit: 10_000 })).map(({ messageSeq, clientMsgNo }) => `${messageSeq} ${clientMsgNo}`)
        return { found, lastSeq: await messages.lastSeq(key), count: await messages.countAfter(key, 0) }
      }),
    )
  }
}

describe('what is due to be removed, under a log', () => {
  const anyStep = fc.oneof(
    { weight: 6, arbitrary: fc.record({ what: fc.constant('say' as const), room: fc.nat({ max: 1 }), numbers: fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 6 }), expireSec: fc.constantFrom(0, 0, 1, 5) }) },
    { weight: 2, arbitrary: fc.record({ what: fc.constant('pass' as const), ms: fc.constantFrom(500, 1_000, 6_000) }) },
    { weight: 2, arbitrary: fc.record({ what: fc.constant('sweep' as const), by: fc.nat({ max: 2 }) }) },
    { weight: 2, arbitrary: fc.record({ what: fc.constant('catch up' as const), by: fc.nat({ max: 2 }), atOnce: fc.integer({ min: 1, max: 4 }) }) },
  )

  it('is removed at the same place on every node, so that all number and recognise the same, whoever finds it and whenever they come to it', async () => {
    const seen = { removed: 0, duplicates: 0, again: 0 }
    const property = fc.asyncProperty(fc.array(anyStep, { minLength: 5, maxLength: 40, size: 'max' }), async (walk) => {
      const cluster = new Cluster()
      const { clock } = cluster
      const options = { ...SMALL, retention: { maxCount: 8, maxAgeMs: 9_000 }, dedupeKeepMs: 3_000, nowMs: () => clock.nowMs() }
      const nodes = [
        await cluster.add(levelStorage({ ...options, db: new WatchedLevel() })),
        await cluster.add(memoryStorage({ nowMs: () => clock.nowMs() })),
        await cluster.add(levelStorage({ ...SMALL, db: new WatchedLevel(), nowMs: () => clock.nowMs() })), // it finds nothing but what has expired
      ]
      let lastID = 0
      for (const step of walk) {
        if (step.what === 'say') {
          const key = ROOMS[step.room]!
          const messages = step.numbers.map((number) =>
            sampleMessage(++lastID, { ...key, clientMsgNo: `${number}`, payload: Buffer.from(`${number}`), timestampMs: clock.nowMs(), expireSec: step.expireSec }),
          )
          cluster.log.push({ key, messages })
          await nodes[0]!.apply(Infinity, 1)
        } else if (step.what === 'pass') {
          await clock.advance(step.ms)
        } else if (step.what === 'sweep') {
          const node = nodes[step.by]!
          await node.apply(Infinity, 3)
          for (let count = 0, isDone = false; !isDone; count++) {
            const swept = await node.storage.messages.sweep!(clock.nowMs())
            seen.removed += swept.removedCount
            isDone = swept.isDone
            expect(count).toBeLessThan(100)
          }
        } else {
          await nodes[step.by]!.apply(Infinity, step.atOnce)
        }
      }
      for (const [index, node] of nodes.entries()) await node.apply(Infinity, index + 1)
      const [first, ...others] = nodes
      for (const other of others) {
        expect(other.results).toEqual(first!.results)
        expect(await other.all()).toEqual(await first!.all())
      }
      seen.duplicates += first!.results.filter(({ status }) => status === 'duplicate').length
      const numbers = cluster.log.flatMap((entry) => (entry instanceof Uint8Array ? [] : entry.messages.map(({ channelID, clientMsgNo }) => `${channelID} ${clientMsgNo}`)))
      const stored = numbers.filter((_number, index) => first!.results[index]!.status === 'stored')
      seen.again += stored.length - new Set(stored).size
    })
    await fc.assert(property, { numRuns: 60, seed })
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(50)
  })

  it('is left to the node that is at it already: one that finds only what has just been removed is done', async () => {
    const cluster = new Cluster()
    const { clock } = cluster
    const [one, two] = [await cluster.add(memoryStorage({ nowMs: () => clock.nowMs() })), await cluster.add(memoryStorage({ nowMs: () => clock.nowMs() }))]
    const [key] = ROOMS
    cluster.log.push({ key: key!, messages: Array.from({ length: 500 }, (_, index) => sampleMessage(index + 1, { ...key!, clientMsgNo: `${index}`, timestampMs: clock.nowMs(), expireSec: 1 })) })
    for (const node of [one, two]) await node.apply(Infinity, 1)
    await clock.advance(2_000)
    const found = await one.storage.messages.sweep!(clock.nowMs())
    expect(found).toEqual({ removedCount: 200, isDone: false })
    expect(await two.storage.messages.sweep!(clock.nowMs())).toEqual({ removedCount: 0, isDone: true }) // it has not come to that entry when it looks
    expect(await one.storage.messages.sweep!(clock.nowMs())).toEqual({ removedCount: 200, isDone: false })
  })

  it('is proposed to every log, also when one of them takes nothing', async () => {
    const clock = new FakeClock({ nowMs: NOW_MS })
    const own = memoryStorage({ nowMs: () => clock.nowMs() })
    const asked: string[] = []
    const propose = async (lane: string): Promise<number> => {
      asked.push(lane)
      return lane.includes('a') ? Promise.reject(new Error('no majority')) : 1
    }
    const storage = new ReplicatedStorage({ storage: own, clock, propose, logOf: ({ channelID }) => channelID, applying: () => undefined, ending: () => 0 })
    await own.messages.append(ROOMS.map((key, index) => ({ key, messages: [sampleMessage(index + 1, { ...key, timestampMs: clock.nowMs(), expireSec: 1 })] })))
    await clock.advance(2_000)
    await expect((async () => storage.messages.sweep!(clock.nowMs()))()).rejects.toThrow('no majority')
    expect(asked).toHaveLength(2)
  })

  it('in a memory store, is what has expired, however much is only too old', async () => {
    const clock = new FakeClock({ nowMs: NOW_MS })
    const { messages } = memoryStorage({ maxAgeMs: 1_000, nowMs: () => clock.nowMs() })
    const [key] = ROOMS
    await messages.append([{ key: key!, messages: Array.from({ length: 300 }, (_, index) => sampleMessage(index + 1, { ...key!, clientMsgNo: `${index}`, timestampMs: NOW_MS - 60_000 })) }])
    await messages.append([{ key: key!, messages: [sampleMessage(900, { ...key!, clientMsgNo: 'x', timestampMs: NOW_MS, expireSec: 1 })] }])
    await clock.advance(5_000)
    expect(await messages.due!(clock.nowMs(), 100)).toEqual({ removals: [{ key, expired: [{ messageSeq: 301, expiresAtMs: NOW_MS + 1_000 }] }], isDone: true })
  })
})
