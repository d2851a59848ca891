import type { Connection } from './connection.ts'

/** The open connections of this node by user, and how many sockets there are by remote address. */
export class ConnectionRegistry {
  readonly #byUID = new Map<string, Connection[]>()
  readonly #byID = new Map<string, Connection>()
  readonly #sockets = new Set<Connection>()
  readonly #unauthenticated = new Set<Connection>()
  readonly #socketCountByAddress = new Map<string, number>()

  /** Open connections. */
  get count(): number {
    return this.#byID.size
  }

  /** Sockets that exist, whatever their state. */
  get sockets(): ReadonlySet<Connection> {
    return this.#sockets
  }

  /** Sockets nobody has logged in on, those included that were refused and are not gone yet. */
  get unauthenticatedCount(): number {
    return this.#unauthenticated.size
  }

  /** Of those the one that came first. */
  get oldestUnauthenticated(): Connection | undefined {
    return this.#unauthenticated.values().next().value
  }

  addSocket(connection: Connection): void {
    this.#sockets.add(connection)
    this.#unauthenticated.add(connection)
    const address = countedAddress(connection.remoteAddress)
    if (address !== undefined) this.#socketCountByAddress.set(address, this.socketCountOf(address) + 1)
  }

  removeSocket(connection: Connection): void {
    if (!this.#sockets.delete(connection)) return
    this.#unauthenticated.delete(connection)
    const address = countedAddress(connection.remoteAddress)
    if (address === undefined) return
    const left = this.socketCountOf(address) - 1
    if (left > 0) this.#socketCountByAddress.set(address, left)
    else this.#socketCountByAddress.delete(address)
  }

  socketCountOf(address: string): number {
    return this.#socketCountByAddress.get(countedAddress(address)) ?? 0
  }

  /** The connection is open: pushes for its user reach it from now on. */
  register(connection: Connection): void {
    this.#unauthenticated.delete(connection)
    this.#byID.set(connection.connectionID, connection)
    // Never changed in place: a push may be looking at the array.
    const others = this.#byUID.get(connection.uid)
    // As a literal it has room for the one: spreading nothing and one more makes room for 17.
    this.#byUID.set(connection.uid, others === undefined ? [connection] : [...others, connection])
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

/**
 * The address that is counted: a socket that listens on IPv6 shows an IPv4 peer as `::ffff:1.2.3.4`, which is the same peer
 * as `1.2.3.4`.
 */
function countedAddress<A extends string | undefined>(address: A): A {
  return address?.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '') as A
}
