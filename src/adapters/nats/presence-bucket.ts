import type { KV, KvEntry, Kvm } from '@nats-io/kv'
import type { JetStreamManager } from '@nats-io/jetstream'
import type { NatsConnection, QueuedIterator } from '@nats-io/transport-node'
import { IMError } from '../../errors.ts'
import { loadDriver, type ClusterConnection } from './connection.ts'

export interface PresenceBucketOptions {
  readonly connection: ClusterConnection
  readonly bucketName: string
  readonly replicas: number
  readonly storage: 'memory' | 'file'
  /** what has not been written for so long is gone, in milliseconds */
  readonly maxAgeMs: number
  /** for one write, in milliseconds */
  readonly writeTimeoutMs: number
}

/** From the first try to make the bucket to giving up: a cluster of servers that has just started has no leader for a while. */
const OPEN_LIMIT_MS = 10_000
const OPEN_PAUSE_MS = 100

/** No try is given up earlier than this, if there is so much time. */
const MIN_TRY_MS = 1_000

/** Erased at once, so that logins are not held up by what nobody waits for. */
const ERASE_STRIDE = 32

/** The bucket of one cluster: it is made by whoever comes first, and made anew when the servers have lost it. */
export class PresenceBucket {
  readonly #options: PresenceBucketOptions
  #nats: NatsConnection | undefined
  #kvm: Kvm | undefined
  #manager: JetStreamManager | undefined
  #kv: KV | undefined
  #maxAgeMs: number

  /**
   * How long one try may take. What was on its way to a leader that has died is never answered, and who waits for the write would
   * wait in vain if its only try had all of their time.
   */
  readonly #tryTimeoutMs: number

  constructor(options: PresenceBucketOptions) {
    this.#options = options
    this.#maxAgeMs = options.maxAgeMs
    this.#tryTimeoutMs = Math.min(options.writeTimeoutMs, Math.max(MIN_TRY_MS, options.writeTimeoutMs / 4))
  }

  /** The servers keep what is written for so long at least, in milliseconds. */
  keepFor(ms: number): void {
    this.#maxAgeMs = Math.max(this.#options.maxAgeMs, ms)
  }

  get isReachable(): boolean {
    return this.#kv !== undefined && this.#options.connection.isConnected
  }

  /** Join the connection. @throws as ClusterConnection.acquire */
  async acquire(): Promise<void> {
    const [{ Kvm }, { jetstream, jetstreamManager }] = await Promise.all([
      loadDriver(() => import('@nats-io/kv'), '@nats-io/kv'),
      loadDriver(() => import('@nats-io/jetstream'), '@nats-io/jetstream'),
    ])
    const { connection, writeTimeoutMs } = this.#options
    this.#nats = await connection.acquire()
    this.#kvm = new Kvm(jetstream(this.#nats, { timeout: this.#tryTimeoutMs }))
    this.#manager = await jetstreamManager(this.#nats, { checkAPI: false, timeout: writeTimeoutMs })
  }

  /** Leave the connection. */
  async release(): Promise<void> {
    if (this.#nats === undefined) return
    this.#nats = undefined
    this.#kv = undefined
    await this.#options.connection.release()
  }

  /** @throws IM_CLUSTER_UNAVAILABLE  JetStream has no leader, or none of the storage that is wanted, for all of the time */
  async ensure(isClosed: () => boolean): Promise<void> {
    const { bucketName, replicas, storage, writeTimeoutMs } = this.#options
    const deadlineMs = performance.now() + OPEN_LIMIT_MS
    for (;;) {
      if (this.#kvm === undefined || isClosed()) throw new IMError('IM_ABORTED', { detail: 'presence was closed while it started' })
      try {
        this.#kv = await this.#kvm.create(bucketName, {
          history: 1,
          replicas,
          storage: storage as never, // the driver's enum, of which nothing may be imported at run time
          ttl: this.#maxAgeMs,
          timeout: writeTimeoutMs,
        })
        return
      } catch (cause) {
        if (performance.now() > deadlineMs) throw new IMError('IM_CLUSTER_UNAVAILABLE', { detail: 'JetStream did not give a bucket for presence', cause })
      }
      await new Promise((resolve) => setTimeout(resolve, OPEN_PAUSE_MS))
    }
  }

  /** @returns the revision. `afterRevision`: only if nobody has written the key since. */
  async put(key: string, value: string, afterRevision?: number): Promise<number> {
    const timeout = this.#tryTimeoutMs
    return await this.#opened().put(key, value, afterRevision === undefined ? { timeout } : { timeout, previousSeq: afterRevision })
  }

  async remove(key: string): Promise<void> {
    await this.#opened().delete(key)
  }

  /**
   * Take what was written as these revisions out of the bucket, unseen by those who watch; what has been written over is left as it
   * is. One by one: on a purge of a whole node's keys, servers of 2.9 let those who watch miss what is written at that moment.
   */
  async erase(revisions: readonly number[]): Promise<void> {
    const manager = this.#manager
    if (manager === undefined) return
    const stream = `KV_${this.#options.bucketName}`
    for (let i = 0; i < revisions.length && this.isReachable; i += ERASE_STRIDE) {
      // What another node has erased first is an error, and as good.
      await Promise.allSettled(revisions.slice(i, i + ERASE_STRIDE).map((revision) => manager.streams.deleteMessage(stream, revision, false)))
    }
  }

  /** The last of every key in the order of writing, then what is written. Ends when the connection does, or by `stop`. */
  async watch(): Promise<QueuedIterator<KvEntry>> {
    return (await this.#opened().watch())
  }

  #opened(): KV {
    if (this.#kv === undefined || !this.#options.connection.isConnected) {
      throw new IMError('IM_PRESENCE_UNAVAILABLE', { detail: this.#kv === undefined ? 'it is not started' : 'this node is cut off from NATS' })
    }
    return this.#kv
  }
}
