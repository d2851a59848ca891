import type { PageQuery } from '../contracts/channel-directory.ts'
import type { ConnectionInfo } from '../contracts/facts.ts'
import { badOption, integerBetween } from '../errors.ts'
import type { Page } from '../model/channel.ts'
import { checkDeviceFlag, checkUID } from './check.ts'

/** Which connections: all that match every field given. */
export interface ConnectionFilter {
  readonly uid?: string
  readonly deviceFlag?: number
  readonly connectionID?: string
  readonly remoteAddress?: string
}

/** A connection as the listing and the calls that end it need it. */
export interface ManagedConnection {
  readonly info: ConnectionInfo
  kick(verdict: 'kick', reason: string): void
  end(cause: 'handler'): void
}

export interface ConnectionsAPIOptions {
  readonly count: () => number
  readonly all: () => Iterable<ManagedConnection>
  readonly of: (uid: string) => readonly ManagedConnection[]
  readonly byID: (connectionID: string) => ManagedConnection | undefined
}

const DEFAULT_LIMIT = 1_000
const MAX_LIMIT = 10_000

/** `engine.connections`: the open connections of this node. */
export class ConnectionsAPI {
  readonly #options: ConnectionsAPIOptions

  constructor(options: ConnectionsAPIOptions) {
    this.#options = options
  }

  /** How many are open. */
  count(): number {
    return this.#options.count()
  }

  /**
   * In the order they came. With a `page`, `limit` of them (1 .. 10000, default 1000), and a `cursor` for the next page: who
   * stays connected is on exactly one page. Without it all at once, for a filter that few match.
   */
  list(filter?: ConnectionFilter): ConnectionInfo[]
  list(filter: ConnectionFilter | undefined, page: PageQuery): Page<ConnectionInfo>
  list(filter: ConnectionFilter = {}, page?: PageQuery): ConnectionInfo[] | Page<ConnectionInfo> {
    checkFilter(filter)
    if (page === undefined) return this.#sorted(filter).map(({ info }) => info)
    if (typeof page !== 'object' || page === null) badOption('page', 'an object', page)
    const limit = integerBetween('limit', page.limit ?? DEFAULT_LIMIT, 1, MAX_LIMIT)
    const after = page.cursor === undefined ? 0 : parseCursor(page.cursor)
    const left = this.#sorted(filter, after)
    const items = left.slice(0, limit).map(({ info }) => info)
    return left.length > limit ? { items, cursor: items.at(-1)!.connectionID } : { items }
  }

  get(connectionID: string): ConnectionInfo | undefined {
    return this.#options.byID(checkText('connectionID', connectionID))?.info
  }

  /**
   * End connections as another login would: DISCONNECT(12) with `reason`, closed `kickLingerMs` later, nothing accepted
   * from them meanwhile. SDKs take it for a logout and do not come back by themselves.
   * @returns how many were ended
   */
  kick(filter: ConnectionFilter, reason = 'server kick'): { readonly kickedCount: number } {
    if (typeof reason !== 'string' || Buffer.byteLength(reason) > 32_767) badOption('reason', 'text of at most 32767 bytes', reason)
    const matching = this.#meant(filter)
    for (const connection of matching) connection.kick('kick', reason)
    return { kickedCount: matching.length }
  }

  /**
   * Close connections without a word, after what they are still to get: SDKs reconnect. The fact `disconnected` has the cause
   * 'handler'.
   * @returns how many were closed
   */
  close(filter: ConnectionFilter): { readonly closedCount: number } {
    const matching = this.#meant(filter)
    for (const connection of matching) connection.end('handler')
    return { closedCount: matching.length }
  }

  /** @throws TypeError for a filter that would mean everybody */
  #meant(filter: ConnectionFilter): ManagedConnection[] {
    if (filter?.uid === undefined && filter?.connectionID === undefined && filter?.remoteAddress === undefined) {
      badOption('filter', '{ uid } or { connectionID } or { remoteAddress }', filter)
    }
    checkFilter(filter)
    return this.#matching(filter)
  }

  #sorted(filter: ConnectionFilter, after = 0): ManagedConnection[] {
    return this.#matching(filter)
      .map((connection) => ({ connection, number: Number(connection.info.connectionID) }))
      .filter(({ number }) => number > after)
      .sort((a, b) => a.number - b.number)
      .map(({ connection }) => connection)
  }

  #matching({ uid, deviceFlag, connectionID, remoteAddress }: ConnectionFilter): ManagedConnection[] {
    return this.#candidates(uid, connectionID).filter(
      ({ info }) =>
        (uid === undefined || info.uid === uid) &&
        (deviceFlag === undefined || info.deviceFlag === deviceFlag) &&
        (connectionID === undefined || info.connectionID === connectionID) &&
        (remoteAddress === undefined || info.remoteAddress === remoteAddress),
    )
  }

  #candidates(uid: string | undefined, connectionID: string | undefined): readonly ManagedConnection[] {
    if (uid !== undefined) return this.#options.of(uid)
    if (connectionID === undefined) return [...this.#options.all()]
    const connection = this.#options.byID(connectionID)
    return connection === undefined ? [] : [connection]
  }
}

function checkFilter(filter: ConnectionFilter): void {
  if (typeof filter !== 'object' || filter === null) badOption('filter', 'an object', filter)
  if (filter.uid !== undefined) checkUID('uid', filter.uid)
  if (filter.deviceFlag !== undefined) checkDeviceFlag(filter.deviceFlag)
  if (filter.connectionID !== undefined) checkText('connectionID', filter.connectionID)
  if (filter.remoteAddress !== undefined) checkText('remoteAddress', filter.remoteAddress)
}

function checkText(name: string, text: unknown): string {
  if (typeof text !== 'string') badOption(name, 'text', text)
  return text
}

function parseCursor(cursor: unknown): number {
  if (typeof cursor !== 'string' || !/^\d{1,15}$/.test(cursor)) badOption('cursor', 'the cursor of the page before', cursor)
  return Number(cursor)
}
