/**
 * One connection to the NATS servers for everything that one `natsCluster` does. Power loss loses what is on its way; nobody has
 * been told that it arrived. A server that falls silent is left for another one after two pings; while none can be reached it is
 * tried without end, with a bounded pause. Close waits a bounded time, also when every server is gone.
 */
import type { Authenticator, errors as DriverErrors, NatsConnection, TlsOptions } from '@nats-io/transport-node'
import { IMError } from '../../errors.ts'

/** How servers are reached; `natsCluster` has checked them. */
export interface ClusterConnectionOptions {
  readonly servers: readonly string[]
  /** as the servers list it among their clients */
  readonly clientName: string
  readonly user?: string | undefined
  readonly pass?: string | undefined
  readonly token?: string | undefined
  /** the text of a credentials file (JWT and seed) */
  readonly creds?: string | undefined
  readonly tls?: TlsOptions | undefined
  /** for one try at one server, in milliseconds */
  readonly connectTimeoutMs: number
  /** between two tries at the same server, in milliseconds; a third of it is jitter */
  readonly reconnectPauseMs: number
  /** a server that leaves two pings at this interval unanswered is left, in milliseconds */
  readonly pingIntervalMs: number
}

export type ClusterConnectionState =
  /** nobody uses it, or it is being opened for the first time */
  | { readonly name: 'idle' }
  | { readonly name: 'connected' }
  /** it is being tried to come back; `sinceMs` of `performance.now` */
  | { readonly name: 'disconnected'; readonly sinceMs: number }

const CLOSE_LIMIT_MS = 2_000

/**
 * Opened by the first `acquire`, closed by the `release` of the last one that holds it; then it can be opened again. Nothing it
 * does rejects or throws outside the call that asked for it.
 */
export class ClusterConnection {
  readonly options: ClusterConnectionOptions
  readonly #listeners = new Set<(state: ClusterConnectionState) => void>()
  #holderCount = 0
  #opening: Promise<NatsConnection> | undefined
  #nats: NatsConnection | undefined
  #closing: Promise<void> = Promise.resolve()
  #state: ClusterConnectionState = { name: 'idle' }

  constructor(options: ClusterConnectionOptions) {
    this.options = options
  }

  get state(): ClusterConnectionState {
    return this.#state
  }

  get isConnected(): boolean {
    return this.#state.name === 'connected'
  }

  /** '' before the first connection */
  get serverVersion(): string {
    return this.#nats?.info?.version ?? ''
  }

  /** the largest message the server takes, in bytes; 0 before the first connection */
  get maxPayloadBytes(): number {
    return this.#nats?.info?.max_payload ?? 0
  }

  /** Hear of every change. @returns a function that ends it */
  watch(listener: (state: ClusterConnectionState) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * The connection, opened if it is not. Every call that has resolved is paired with one `release`.
   * @throws IM_DRIVER_MISSING  @nats-io/transport-node is not installed
   * @throws IM_CLUSTER_UNAVAILABLE  no server answered in time
   * @throws IM_CLUSTER_DENIED  a server refused the login, or TLS failed
   */
  async acquire(): Promise<NatsConnection> {
    this.#holderCount++
    const opening = (this.#opening ??= this.#open())
    try {
      return await opening
    } catch (error) {
      this.#holderCount--
      if (this.#opening === opening) this.#opening = undefined
      throw error
    }
  }

  /** Never rejects. When the last holder has released it, the connection is closed. */
  async release(): Promise<void> {
    if (this.#holderCount === 0 || --this.#holderCount > 0) return
    const nats = this.#nats
    this.#opening = undefined
    this.#nats = undefined
    this.#closing = nats === undefined ? this.#closing : closeInTime(nats)
    this.#become({ name: 'idle' })
    await this.#closing
  }

  async #open(): Promise<NatsConnection> {
    await this.#closing
    const driver = await loadDriver(() => import('@nats-io/transport-node'), '@nats-io/transport-node')
    const { servers, clientName, user, pass, token, creds, tls, connectTimeoutMs, reconnectPauseMs, pingIntervalMs } = this.options
    const authenticator: Authenticator | undefined = creds === undefined ? undefined : driver.credsAuthenticator(new TextEncoder().encode(creds))
    let nats: NatsConnection
    try {
      nats = await driver.connect({
        servers: [...servers],
        name: clientName,
        timeout: connectTimeoutMs,
        maxReconnectAttempts: -1,
        reconnectDelayHandler: () => reconnectPauseMs * (2 / 3 + Math.random() / 3),
        ignoreAuthErrorAbort: true, // a password that is being changed must not end the node
        noAsyncTraces: true, // an Error for each request, in case it fails
        pingInterval: pingIntervalMs,
        maxPingOut: 2,
        ...(user === undefined ? {} : { user }),
        ...(pass === undefined ? {} : { pass }),
        ...(token === undefined ? {} : { token }),
        ...(authenticator === undefined ? {} : { authenticator }),
        ...(tls === undefined ? {} : { tls }),
      })
    } catch (cause) {
      throw connectFailure(cause, driver.errors)
    }
    this.#nats = nats
    this.#become({ name: 'connected' })
    void this.#follow(nats)
    return nats
  }

  async #follow(nats: NatsConnection): Promise<void> {
    for await (const { type } of nats.status()) {
      if (this.#nats !== nats) return
      if (type === 'disconnect' || type === 'staleConnection' || type === 'close') this.#lost()
      else if (type === 'reconnect') this.#become({ name: 'connected' })
    }
  }

  #lost(): void {
    if (this.isConnected) this.#become({ name: 'disconnected', sinceMs: performance.now() })
  }

  #become(state: ClusterConnectionState): void {
    this.#state = state
    for (const listener of [...this.#listeners]) listener(state)
  }
}

/** The last ones that run on Node 20, too. */
const DRIVERS = ['transport-node', 'jetstream', 'kv'].map((name) => `@nats-io/${name}@~3.3`).join(' ')

/** Import a package that a host may not have. @throws IM_DRIVER_MISSING naming it */
export async function loadDriver<T>(load: () => Promise<T>, packageName: string): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    throw new IMError('IM_DRIVER_MISSING', { detail: `${packageName} is missing: npm install ${DRIVERS}`, cause })
  }
}

/** A connection that is trying to come back can make `close` wait for its try. */
async function closeInTime(nats: NatsConnection): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CLOSE_LIMIT_MS)
  })
  await Promise.race([nats.close().catch(() => undefined), late]) // what fails in closing has nothing left to lose
  clearTimeout(timer)
}

function connectFailure(cause: unknown, errors: typeof DriverErrors): IMError {
  if (cause instanceof errors.AuthorizationError || cause instanceof errors.UserAuthenticationExpiredError) {
    return new IMError('IM_CLUSTER_DENIED', { detail: 'NATS refused the login', cause })
  }
  if (cause instanceof errors.InvalidArgumentError || isTLSFailure(cause)) {
    return new IMError('IM_CLUSTER_DENIED', { detail: 'NATS: TLS does not fit', cause })
  }
  return new IMError('IM_CLUSTER_UNAVAILABLE', { detail: 'no NATS server answered', cause })
}

/** By the codes of Node and OpenSSL; the driver wraps some of them. */
function isTLSFailure(cause: unknown): boolean {
  for (let error = cause, depth = 0; error instanceof Error && depth < 4; error = error.cause, depth++) {
    const { code } = error as { readonly code?: unknown }
    if (typeof code === 'string' && /^ERR_(?:TLS|SSL)|CERT|^EPROTO$|SIGNATURE/.test(code)) return true
  }
  return false
}
