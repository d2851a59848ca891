import type { PresenceChange } from '../contracts/facts.ts'

export interface OnlineUsersOptions {
  /** the open connections of a user */
  readonly of: (uid: string) => readonly { readonly deviceFlag: number }[]
  /** must not throw */
  readonly tell: (change: PresenceChange) => void
}

/**
 * Who has been told to be online: for each user one 'online' and one 'offline', in turn, however many devices come and go.
 * What a listener brings about is told behind what is being told.
 */
export class OnlineUsers {
  readonly #options: OnlineUsersOptions
  readonly #online = new Set<string>()
  #waiting: PresenceChange[] | undefined

  constructor(options: OnlineUsersOptions) {
    this.#options = options
  }

  /** A connection of the user has been opened. */
  came(uid: string): void {
    const connections = this.#options.of(uid)
    if (connections.length === 0 || this.#online.has(uid)) return
    this.#online.add(uid)
    this.#tell({ uid, online: true, deviceFlags: [...new Set(connections.map(({ deviceFlag }) => deviceFlag))].sort((a, b) => a - b) })
  }

  /** A connection of the user has ended. */
  went(uid: string): void {
    if (this.#options.of(uid).length > 0 || !this.#online.delete(uid)) return
    this.#tell({ uid, online: false, deviceFlags: [] })
  }

  #tell(change: PresenceChange): void {
    if (this.#waiting !== undefined) {
      this.#waiting.push(change)
      return
    }
    this.#waiting = [change]
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) this.#options.tell(next)
    this.#waiting = undefined
  }
}
