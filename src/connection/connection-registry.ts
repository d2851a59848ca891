import type { Connection } from './connection.ts'

/** The open connections of this node by user, and how many sockets there are by remote address. */
export class ConnectionRegistry {
  readonly #byUID = new Map<string, Connection[]>()
  readonly #byID = new Map<string, Connection>()
  readonly #sockets = new Set<Connection>()
  readonly #socketCountByAddress = new Map<string, number>()

  /** Open connections. */
  get count(): number {
    return this.#byID.size
  }

  /** Sockets that exist, whatever their state. */
  get sockets(): ReadonlySet<Connection> {
    return this.#sockets
  }

  addSocket(connection: Connection): void {
    this.#sockets.add(connection)
    const address = connection.remoteAddress
    if (address !== undefined) this.#socketCountByAddress.set(address, this.socketCountOf(address) + 1)
  }

  removeSocket(connection: Connection): void {
    if (!this.#sockets.delete(connection)) return
    const address = connection.remoteAddress
    if (address === undefined) return
    const left = this.socketCountOf(address) - 1
    if (left > 0) this.#socketCountByAddress.set(address, left)
    else this.#socketCountByAddress.delete(address)
  }

  socketCountOf(address: string): number {
    return this.#socketCountByAddress.get(address) ?? 0
  }

  /** The connection is open: pushes for its user reach it from now on. */
  register(connection: Connection): void {
    this.#byID.set(connection.connectionID, connection)
    // Never changed in place: a push may be looking at the array.
    this.#byUID.set(connection.uid, [...this.of(connection.uid), connection])
  }

  unregister(connection: Connection): void {
    if (!this.#byID.delete(connection.connectionID)) return
    const rest = this.of(connection.uid).filter((other) => other !== connection)
    if (rest.length > 0) this.#byUID.set(connection.uid, rest)
    else this.#byUID.delete(connection.uid)
  }

  /** The open connections of a user, in the order they came; empty for none. The array never changes. */
  of(uid: string): readonly Connection[] {
    return this.#byUID.get(uid) ?? NONE
  }

  byID(connectionID: string): Connection | undefined {
    return this.#byID.get(connectionID)
  }

  all(): IterableIterator<Connection> {
    return this.#byID.values()
  }
}

const NONE: readonly Connection[] = Object.freeze([])
