import type { ConnectionInfo } from '../contracts/facts.ts'
import { badOption } from '../errors.ts'

/** Which connections: all that match every field given. */
export interface ConnectionFilter {
  readonly uid?: string
  readonly deviceFlag?: number
  readonly connectionID?: string
}

/** A connection as the listing and the kick need it. */
export interface ManagedConnection {
  readonly info: ConnectionInfo
  kick(verdict: 'kick', reason: string): void
}

export interface ConnectionsAPIOptions {
  readonly all: () => Iterable<ManagedConnection>
  readonly of: (uid: string) => readonly ManagedConnection[]
  readonly byID: (connectionID: string) => ManagedConnection | undefined
}

/** `engine.connections`: the open connections of this node. */
export class ConnectionsAPI {
  readonly #options: ConnectionsAPIOptions

  constructor(options: ConnectionsAPIOptions) {
    this.#options = options
  }

  list(filter: ConnectionFilter = {}): ConnectionInfo[] {
    return this.#matching(filter).map((connection) => connection.info)
  }

  /**
   * End connections as another login would: DISCONNECT(12) with `reason`, closed `kickLingerMs` later, nothing accepted
   * from them meanwhile. SDKs take it for a logout and do not come back by themselves.
   * @returns how many were ended
   */
  kick(filter: ConnectionFilter, reason = 'server kick'): { readonly kickedCount: number } {
    if (filter?.uid === undefined && filter?.connectionID === undefined) badOption('filter', '{ uid } or { connectionID }', filter)
    if (typeof reason !== 'string' || Buffer.byteLength(reason) > 32_767) badOption('reason', 'text of at most 32767 bytes', reason)
    const matching = this.#matching(filter)
    for (const connection of matching) connection.kick('kick', reason)
    return { kickedCount: matching.length }
  }

  #matching({ uid, deviceFlag, connectionID }: ConnectionFilter): ManagedConnection[] {
    return this.#candidates(uid, connectionID).filter(
      ({ info }) =>
        (uid === undefined || info.uid === uid) &&
        (deviceFlag === undefined || info.deviceFlag === deviceFlag) &&
        (connectionID === undefined || info.connectionID === connectionID),
    )
  }

  #candidates(uid: string | undefined, connectionID: string | undefined): readonly ManagedConnection[] {
    if (uid !== undefined) return this.#options.of(uid)
    if (connectionID === undefined) return [...this.#options.all()]
    const connection = this.#options.byID(connectionID)
    return connection === undefined ? [] : [connection]
  }
}
