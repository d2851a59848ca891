import type { PeerKickRequest } from '../../contracts/peer-push.ts'

/** So many for one node: beyond it the oldest is given up. */
const MAX_COUNT = 4_096

interface OwedKick {
  readonly request: PeerKickRequest
  readonly atMs: number
}

/**
 * Kicks that one node has missed. Of those that end the same, the last one is enough: it ends what was there before it. They are the
 * same when login and word are, and not by user alone: a slave's would not end what the master's before it does.
 */
export class OwedKicks {
  readonly #kicks = new Map<string, OwedKick>()
  /** more than are kept: nobody is going to tell the node of them */
  givenUpCount = 0

  add(request: PeerKickRequest, atMs: number): void {
    const { uid, deviceFlag, deviceID, deviceLevel, out } = request
    const key = JSON.stringify([uid, deviceFlag, deviceID, deviceLevel, out?.allDevices])
    this.#kicks.delete(key)
    this.#kicks.set(key, { request, atMs })
    if (this.#kicks.size <= MAX_COUNT) return
    this.dropOldest()
    this.givenUpCount++
  }

  /** Those of `later` came behind the ones here. */
  addAll(later: OwedKicks): void {
    this.givenUpCount += later.givenUpCount
    for (const { request, atMs } of later.#kicks.values()) this.add(request, atMs)
  }

  /** With how long ago it was made. */
  get oldest(): PeerKickRequest | undefined {
    const oldest = this.#kicks.values().next().value
    return oldest && { ...oldest.request, agoMs: performance.now() - oldest.atMs }
  }

  dropOldest(): void {
    this.#kicks.delete(this.#kicks.keys().next().value!)
  }
}
