import type { PresenceChange } from '../contracts/facts.ts'
import type { Presence, PresenceEntry } from '../contracts/presence.ts'
import { asIMError, badOption, IMError } from '../errors.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import { checkUIDs } from './check.ts'
import { inPieces, type Pause } from './pieces.ts'

/** A device of a user that is connected now, to this node or to another one. */
export interface PresentDevice {
  readonly deviceFlag: number
  readonly deviceLevel: number
  /** unique on its node */
  readonly connectionID: string
  readonly nodeID: number
}

export interface UserPresence {
  readonly uid: string
  readonly online: boolean
  /** those of this node first */
  readonly devices: readonly PresentDevice[]
}

export type PresenceListener = (update: PresenceChange) => void

export interface PresenceAPIOptions {
  readonly nodeID: number
  readonly of: (uid: string) => readonly Omit<PresentDevice, 'nodeID'>[]
  readonly presence: Presence | undefined
  /** ask presence; ends in time */
  readonly limited: <T>(ask: () => MaybePromise<T>) => Promise<T>
  readonly maxMembersPerCall: number
  readonly pause: Pause
  readonly report: (error: IMError) => void
}

/** Questions to presence under way at the same time. */
const CONCURRENT_COUNT = 50

/** `engine.presence`: who is online. */
export class PresenceAPI {
  readonly #options: PresenceAPIOptions
  readonly #everybody = new Set<Subscription>()
  readonly #byUID = new Map<string, Set<Subscription>>()

  constructor(options: PresenceAPIOptions) {
    this.#options = options
  }

  /**
   * Which devices of these users are connected, in the order asked; at most `maxMembersPerCall` users. Of this node what is so
   * now; of other nodes what `presence` knows.
   * @throws TypeError; IM_PRESENCE_UNAVAILABLE  it failed, or took longer than `presenceTimeoutMs`
   */
  async query(uids: readonly string[]): Promise<readonly UserPresence[]> {
    const { maxMembersPerCall, pause } = this.#options
    const answers: UserPresence[] = []
    await inPieces(checkUIDs('uids', uids, maxMembersPerCall), pause, async (piece) => {
      const elsewhere = await this.#elsewhere(piece)
      for (const uid of piece) {
        const devices = [...this.#here(uid), ...(elsewhere.get(uid) ?? [])]
        answers.push({ uid, online: devices.length > 0, devices })
      }
    })
    return answers
  }

  /**
   * Hear when one of these users, or anybody ('*'), comes online on this node and when they have gone: one of each in turn,
   * however many devices come and go between. A login that ends another one of the same user is neither. A listener that
   * throws is reported as IM_LISTENER_FAILED.
   * @returns a function that ends the subscription
   */
  subscribe(uids: readonly string[] | '*', listener: PresenceListener): () => void {
    const wanted = uids === '*' ? uids : new Set(checkUIDs('uids', uids, this.#options.maxMembersPerCall))
    if (typeof listener !== 'function') badOption('listener', 'a function', listener)
    const subscription: Subscription = { listener, hasEnded: false }
    if (wanted === '*') this.#everybody.add(subscription)
    else for (const uid of wanted) this.#subscribersFor(uid).add(subscription)
    return () => {
      if (subscription.hasEnded) return
      subscription.hasEnded = true
      this.#everybody.delete(subscription)
      if (wanted !== '*') for (const uid of wanted) this.#drop(uid, subscription)
    }
  }

  /** For the engine: this has happened. Never throws. */
  tell(update: PresenceChange): void {
    for (const subscription of [...this.#everybody, ...(this.#byUID.get(update.uid) ?? [])]) {
      if (!subscription.hasEnded) this.#call(subscription.listener, update)
    }
  }

  #call(listener: PresenceListener, update: PresenceChange): void {
    const failed = (reason: unknown): void =>
      this.#options.report(asIMError(reason, 'IM_LISTENER_FAILED', { event: 'presenceChanged', uid: update.uid }))
    try {
      const result: unknown = listener(update)
      if (isPromise(result)) result.then(undefined, failed)
    } catch (reason) {
      failed(reason)
    }
  }

  #here(uid: string): PresentDevice[] {
    return this.#options.of(uid).map((device) => deviceOf(device, this.#options.nodeID))
  }

  /** The own registry knows better than presence what is connected here. */
  async #elsewhere(uids: readonly string[]): Promise<ReadonlyMap<string, readonly PresentDevice[]>> {
    const { presence, nodeID, limited } = this.#options
    const found = new Map<string, readonly PresentDevice[]>()
    if (presence === undefined) return found
    try {
      const located = await limited(() => presence.locate(uids))
      const asked = [...located].flatMap(([uid, nodes]) => (nodes.some((other) => other !== nodeID) ? [uid] : []))
      for (let first = 0; first < asked.length; first += CONCURRENT_COUNT) {
        const ask = async (uid: string): Promise<void> => {
          const entries = await limited(() => presence.devices(uid))
          found.set(uid, entries.filter((entry) => entry.nodeID !== nodeID).map((entry) => deviceOf(entry, entry.nodeID)))
        }
        await Promise.all(asked.slice(first, first + CONCURRENT_COUNT).map(ask))
      }
    } catch (reason) {
      throw new IMError('IM_PRESENCE_UNAVAILABLE', { cause: reason })
    }
    return found
  }

  #subscribersFor(uid: string): Set<Subscription> {
    let subscriptions = this.#byUID.get(uid)
    if (subscriptions === undefined) this.#byUID.set(uid, (subscriptions = new Set()))
    return subscriptions
  }

  #drop(uid: string, subscription: Subscription): void {
    const subscriptions = this.#byUID.get(uid)
    subscriptions?.delete(subscription)
    if (subscriptions?.size === 0) this.#byUID.delete(uid)
  }
}

interface Subscription {
  readonly listener: PresenceListener
  hasEnded: boolean
}

function deviceOf({ deviceFlag, deviceLevel, connectionID }: Omit<PresenceEntry, 'uid' | 'nodeID'>, nodeID: number): PresentDevice {
  return { deviceFlag, deviceLevel, connectionID, nodeID }
}
