/**
 * What a node's storage holds, brought to a node that the log can no longer help, over core NATS: the one that needs it asks who has
 * it, takes the node that is furthest, and acknowledges chunk by chunk, so that neither keeps more of it in memory than one.
 * Power loss, and a connection that is lost, end the transfer; the next start begins anew. `close` ends those under way.
 *
 *   `<name>.snapshot.who`        JSON { version } → JSON { nodeID, positions: { log: index } } of every node that can give one
 *   `<name>.snapshot.of.<node>`  asked with an inbox; chunks go there, each answered: u8 what · u32 number · bytes
 */
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node'
import type { ReplicatorHost } from '../../contracts/replicator.ts'
import { asIMError, IMError } from '../../errors.ts'

const VERSION = 1
const What = { Chunk: 0, End: 1, Failed: 2 } as const
const HEAD_BYTES = 5
const OFFER_WAIT_MS = 1_000
/** for one chunk to be written by the one, or read by the other */
const CHUNK_TIMEOUT_MS = 15_000
/** A snapshot reads the whole storage: more than so many at once would be felt. */
const MAX_SERVED_COUNT = 2
/** nodes that one that needs a snapshot asks for it, one after the other */
const MAX_TRY_COUNT = 3

export interface SnapshotsOptions {
  readonly nats: NatsConnection
  readonly name: string
  readonly host: ReplicatorHost
  readonly maxPayloadBytes: () => number
  /** where this node stands; undefined while nobody should have what it has */
  readonly positions: () => Readonly<Record<string, number>> | undefined
  readonly report: (error: IMError) => void
}

interface Offer {
  readonly nodeID: number
  readonly positions: Readonly<Record<string, number>>
}

export class Snapshots {
  readonly #options: SnapshotsOptions
  readonly #subscriptions = new Set<Subscription>()
  #servedCount = 0
  #isClosed = false
  #endFetch: ((error: IMError) => void) | undefined

  constructor(options: SnapshotsOptions) {
    this.#options = options
  }

  /** Give to others from now on. */
  serve(): void {
    const { nats, name, host, positions } = this.#options
    if (host.snapshot === undefined) return
    this.#listen(`${name}.snapshot.who`, (message) => {
      const offered = positions()
      if (offered !== undefined && versionOf(message) === VERSION) message.respond(JSON.stringify({ nodeID: host.nodeID, positions: offered } satisfies Offer))
    })
    this.#listen(`${name}.snapshot.of.${host.nodeID}`, (message) => {
      const inbox = message.reply
      if (inbox === undefined || inbox === '') return
      if (this.#servedCount >= MAX_SERVED_COUNT) return nats.publish(inbox, frame(What.Failed, 0, Buffer.from('busy')))
      void this.#give(inbox)
    })
  }

  /**
   * Replace this node's storage by another node's.
   * @param needed  the least position of each log that helps
   * @returns false when nobody has one
   * @throws IM_CLUSTER_UNAVAILABLE  none came to its end; or what `restore` throws. The storage is empty then
   */
  async fetch(needed: ReadonlyMap<string, number>): Promise<boolean> {
    const { host } = this.#options
    if (host.restore === undefined) return false
    const offers = await this.#offers()
    const helpful = offers.filter(({ positions }) => [...needed].every(([log, least]) => (positions[log] ?? 0) >= least))
    let failure: IMError | undefined
    // The furthest; when it is busy, or breaks down, the next one.
    for (const { nodeID } of helpful.toSorted((a, b) => sum(b) - sum(a)).slice(0, MAX_TRY_COUNT)) {
      if (this.#isClosed) throw closed()
      try {
        await host.restore(this.#chunksOf(nodeID))
        return true
      } catch (error) {
        if (!(error instanceof IMError) || error.code !== 'IM_CLUSTER_UNAVAILABLE') throw error
        failure = error
      }
    }
    if (failure !== undefined) throw failure
    return false
  }

  close(): void {
    this.#isClosed = true
    for (const subscription of this.#subscriptions) subscription.unsubscribe()
    this.#subscriptions.clear()
    this.#endFetch?.(closed())
  }

  #listen(subject: string, heard: (message: Msg) => void): Subscription {
    const subscription = this.#options.nats.subscribe(subject, {
      callback: (error, message) => {
        if (error === null || error === undefined) heard(message)
      },
    })
    this.#subscriptions.add(subscription)
    return subscription
  }

  #stopListening(subscription: Subscription): void {
    subscription.unsubscribe()
    this.#subscriptions.delete(subscription)
  }

  async #offers(): Promise<Offer[]> {
    const { nats, name, host } = this.#options
    const inbox = inboxName()
    const offers: Offer[] = []
    const subscription = this.#listen(inbox, (message) => {
      const offer = parse(message)
      if (isOffer(offer) && offer.nodeID !== host.nodeID) offers.push(offer)
    })
    nats.publish(`${name}.snapshot.who`, JSON.stringify({ version: VERSION }), { reply: inbox })
    await new Promise((resolve) => setTimeout(resolve, OFFER_WAIT_MS))
    this.#stopListening(subscription)
    return offers
  }

  async *#chunksOf(nodeID: number): AsyncGenerator<Uint8Array, void, undefined> {
    const { nats, name } = this.#options
    const arrived: Msg[] = []
    let wake = (): void => undefined
    let failure: IMError | undefined
    const inbox = inboxName()
    const subscription = this.#listen(inbox, (message) => {
      arrived.push(message)
      wake()
    })
    this.#endFetch = (error) => {
      failure = error
      wake()
    }
    try {
      nats.publish(`${name}.snapshot.of.${nodeID}`, '', { reply: inbox })
      for (let number = 1; ; ) {
        if (arrived.length === 0 && failure === undefined) {
          await new Promise<void>((resolve) => {
            const timer = setTimeout(() => this.#endFetch?.(lost(nodeID, 'nothing came')), CHUNK_TIMEOUT_MS)
            wake = () => (clearTimeout(timer), resolve())
          })
        }
        if (failure !== undefined) throw failure
        const message = arrived.shift()!
        const bytes = Buffer.from(message.data.buffer, message.data.byteOffset, message.data.byteLength)
        if (bytes.length < HEAD_BYTES || bytes[0] === What.Failed) throw lost(nodeID, 'it could not be given')
        const given = bytes.readUInt32BE(1)
        if (given === number - 1) { // one whose answer was lost
          message.respond('')
          continue
        }
        if (given !== number) throw lost(nodeID, 'a piece of it is missing')
        number++
        if (bytes[0] === What.End) return void message.respond('')
        yield bytes.subarray(HEAD_BYTES)
        message.respond('') // not before it has been dealt with
      }
    } finally {
      this.#endFetch = undefined
      this.#stopListening(subscription)
    }
  }

  /** Never rejects. */
  async #give(inbox: string): Promise<void> {
    const { nats, host, maxPayloadBytes, positions, report } = this.#options
    this.#servedCount++
    let number = 0
    const send = async (what: number, bytes: Uint8Array): Promise<void> => {
      // Not the last of it either, when it has come out meanwhile that this is not what the others have.
      if (positions() === undefined) throw new IMError('IM_CLUSTER_UNAVAILABLE', { detail: 'a snapshot was asked for, and what this node has is in doubt' })
      await nats.request(inbox, frame(what, ++number, bytes), { timeout: CHUNK_TIMEOUT_MS })
    }
    try {
      for await (const chunk of host.snapshot!()) {
        if (this.#isClosed) return
        const most = Math.max(1, maxPayloadBytes() - HEAD_BYTES)
        for (let start = 0; start < chunk.length; start += most) await send(What.Chunk, chunk.subarray(start, start + most))
      }
      await send(What.End, Buffer.alloc(0))
    } catch (error) {
      if (this.#isClosed) return
      report(asIMError(error, 'IM_CLUSTER_UNAVAILABLE', {}))
      nats.publish(inbox, frame(What.Failed, ++number, Buffer.alloc(0)))
    } finally {
      this.#servedCount--
    }
  }
}

function frame(what: number, number: number, bytes: Uint8Array): Buffer {
  const whole = Buffer.allocUnsafe(HEAD_BYTES + bytes.length)
  whole[0] = what
  whole.writeUInt32BE(number, 1)
  whole.set(bytes, HEAD_BYTES)
  return whole
}

function inboxName(): string {
  return `_INBOX.imengine.snapshot.${crypto.randomUUID()}`
}

function parse(message: Msg): unknown {
  try {
    return message.json()
  } catch {
    return undefined // somebody else's
  }
}

function versionOf(message: Msg): unknown {
  return (parse(message) as { version?: unknown } | undefined)?.version
}

function isOffer(offer: unknown): offer is Offer {
  const { nodeID, positions } = (offer ?? {}) as Partial<Offer>
  return Number.isInteger(nodeID) && typeof positions === 'object' && positions !== null
}

function sum({ positions }: Offer): number {
  return Object.values(positions).reduce((all, position) => all + position, 0)
}

function closed(): IMError {
  return new IMError('IM_NOT_RUNNING', { detail: 'closed while a snapshot came' })
}

function lost(nodeID: number, detail: string): IMError {
  return new IMError('IM_CLUSTER_UNAVAILABLE', { detail: `the snapshot of node ${nodeID}: ${detail}` })
}
