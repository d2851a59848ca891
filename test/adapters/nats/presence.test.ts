import { afterAll, beforeAll, describe, test } from 'vitest'
import type { Presence, PresenceEntry } from 'imengine'
import { presenceContract } from 'imengine/testing'
import type { NatsPresence } from '../../../src/adapters/nats/presence.ts'
import { entry, LONG_MS, newName, presenceOn, SteppingClock } from './open.ts'
import { NATS_SERVER, startNatsServers, until, type NatsServers } from './servers.ts'

/** Every node announces through a NatsPresence of its own, and one that announces nothing answers, when it has read everything. */
class FarPresence implements Presence {
  readonly #make: () => NatsPresence
  readonly #reader: NatsPresence
  readonly #writers = new Map<number, Promise<NatsPresence>>()
  #syncCount = 0

  constructor(make: () => NatsPresence) {
    this.#make = make
    this.#reader = make()
  }

  async start(): Promise<void> {
    await this.#reader.start({ intervalMs: LONG_MS })
  }

  async online(one: PresenceEntry): Promise<void> {
    await (await this.#writer(one.nodeID)).online(one)
  }

  async offline(one: PresenceEntry): Promise<void> {
    await (await this.#writer(one.nodeID)).offline(one)
  }

  async locate(uids: readonly string[]): Promise<ReadonlyMap<string, readonly number[]>> {
    await this.#catchUp()
    return this.#reader.locate(uids)
  }

  async devices(uid: string): Promise<readonly PresenceEntry[]> {
    await this.#catchUp()
    return this.#reader.devices(uid)
  }

  async heartbeat(nodeID: number, intervalMs: number): Promise<void> {
    await (await this.#writer(nodeID)).heartbeat(nodeID, intervalMs)
  }

  async leave(nodeID: number): Promise<void> {
    await (await this.#writer(nodeID)).leave(nodeID)
  }

  async close(): Promise<void> {
    for (const writer of this.#writers.values()) await (await writer).close()
    await this.#reader.close()
  }

  /** The bucket has one order: what is written now comes behind everything that has been confirmed. */
  async #catchUp(): Promise<void> {
    const sync = await this.#writer(999)
    await sync.heartbeat(999, LONG_MS)
    const uid = `sync ${++this.#syncCount}`
    await sync.online(entry(uid, 999, uid))
    await until(() => this.#reader.locate([uid]).size === 1, 25_000, 'the reader does not catch up')
    await sync.offline(entry(uid, 999, uid))
  }

  #writer(nodeID: number): Promise<NatsPresence> {
    let writer = this.#writers.get(nodeID)
    if (writer === undefined) {
      const made = this.#make()
      this.#writers.set(nodeID, (writer = made.start({ intervalMs: LONG_MS }).then(() => made)))
    }
    return writer
  }
}

describe.skipIf(NATS_SERVER === undefined)('Presence in a bucket of one nats-server', () => {
  let servers: NatsServers
  beforeAll(async () => {
    servers = await startNatsServers()
  })
  afterAll(() => servers.close())

  const own = presenceContract({
    open: async () => {
      const clock = new SteppingClock()
      const subject = presenceOn(servers.urls, { nowMs: clock.now })
      await subject.start({ intervalMs: LONG_MS })
      return { subject, clock, close: () => subject.close() }
    },
    advance: ({ clock }, ms) => void (clock.ms += ms),
  })
  for (const { name, run } of own) test(`on the node itself: ${name}`, run)
})

describe.skipIf(NATS_SERVER === undefined)('Presence in a bucket of three nats-servers', () => {
  let servers: NatsServers
  beforeAll(async () => {
    servers = await startNatsServers({ count: 3 })
  })
  afterAll(() => servers.close())

  const far = presenceContract({
    open: async () => {
      const clock = new SteppingClock()
      const name = newName()
      const subject = new FarPresence(() => presenceOn(servers.urls, { name, nowMs: clock.now, replicas: 3 }))
      await subject.start()
      return { subject, clock, close: () => subject.close() }
    },
    advance: ({ clock }, ms) => void (clock.ms += ms),
  })
  for (const { name, run } of far) test(`as another node sees it: ${name}`, run)
})
