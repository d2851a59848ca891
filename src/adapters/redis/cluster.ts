import type { Redis, RedisOptions } from 'ioredis'
import type { PeerPush } from '../../contracts/peer-push.ts'
import type { Presence } from '../../contracts/presence.ts'
import { IMError } from '../../errors.ts'
import { DISCONNECT_MS, RedisLink } from './link.ts'
import { checkOptions, type CheckedOptions, type RedisClusterOptions } from './options.ts'
import { RedisPeerPush } from './peer-push.ts'
import { RedisPresence } from './presence.ts'
import { SCRIPTS } from './scripts.ts'

/** What one engine needs of Redis: for each engine one. */
export interface RedisCluster {
  readonly presence: Presence
  /** `peerPush.close()`, which the engine calls at its end, closes everything, as `close` does. */
  readonly peerPush: PeerPush
  /** For a host that uses `presence` alone. Ends within half a second, also when Redis is gone; twice does no harm. */
  close(): Promise<void>
}

/**
 * Presence, pushes and kicks for nodes that share one Redis and one store. Two connections, made at the first call: one asks,
 * one listens. Power loss: nothing here needs to survive; what a Redis has forgotten is written again. A slow Redis makes
 * calls fail after `commandTimeoutMs`, a slow peer holds up the pushes to itself.
 * @throws TypeError for wrong options. Calls reject with IM_DRIVER_MISSING when ioredis is not installed.
 */
export function redisCluster(options: RedisClusterOptions): RedisCluster {
  const checked = checkOptions(options)
  const report = (error: IMError): void => {
    try {
      checked.onError(error)
    } catch {
      // It is told not to throw, and there is nobody left to be told.
    }
  }
  const { connectTimeoutMs, reconnectGraceMs, checkIntervalMs, maxWaitingCount } = checked
  const common = { make: () => makeClient(checked), connectTimeoutMs, reconnectGraceMs, checkIntervalMs, maxWaitingCount, report }
  let runID: string | undefined
  let isOther = false
  const asking = new RedisLink({
    ...common,
    code: 'IM_PRESENCE_UNAVAILABLE',
    prepare: async (client) => {
      // Loaded before they are called, so that no call has to be sent a second time, behind later ones.
      const [found] = await Promise.all([runIDOf(client), ...SCRIPTS.map(({ lua }) => client.script('LOAD', lua))])
      isOther ||= runID !== undefined && (found === undefined || found !== runID)
      runID = found ?? ''
    },
    ready: () => {
      if (isOther) presence.serverChanged()
      isOther = false
    },
  })
  const presence: RedisPresence = new RedisPresence({ link: asking, report, ...checked })
  const listening = new RedisLink({
    ...common,
    code: 'IM_PEER_UNREACHABLE',
    prepare: (client) => peerPush.subscribe(client),
    lost: () => peerPush.lost(),
  })
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => (closed ??= Promise.all([asking.close(), listening.close()]).then(() => undefined))
  const peerPush: RedisPeerPush = new RedisPeerPush({ asking, listening, report, closeLinks: close, ...checked })
  return { presence, peerPush, close: () => peerPush.close() }
}

/** The same server that has been started anew, or another one after a failover, has another id. */
async function runIDOf(client: Redis): Promise<string | undefined> {
  try {
    return /^run_id:(\w+)/m.exec(await client.info('server'))?.[1]
  } catch {
    return undefined // not everybody may ask; then every new connection is taken for one to another server
  }
}

async function makeClient({ url, options, client, commandTimeoutMs, connectTimeoutMs }: CheckedOptions): Promise<Redis> {
  const ours: RedisOptions = {
    lazyConnect: true,
    keyPrefix: '',
    stringNumbers: false,
    replyMapping: 'legacy',
    enableAutoPipelining: false,
    monitor: false,
    // Nothing waits in the driver, and nothing is sent twice: the link and the callers know what may be.
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    commandTimeout: commandTimeoutMs,
    connectTimeout: connectTimeoutMs,
    // A master that has become a replica: the next connection finds the new one.
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
  }
  const extra = { ...ours, disconnectTimeout: DISCONNECT_MS }
  if (client !== undefined) return client.duplicate(extra)
  let driver: { readonly Redis: new (...args: [string, RedisOptions] | [RedisOptions]) => Redis }
  try {
    driver = await import('ioredis')
  } catch (cause) {
    throw new IMError('IM_DRIVER_MISSING', { detail: 'npm install ioredis', cause })
  }
  const named = { connectionName: 'imengine', retryStrategy, ...options, ...extra }
  return url === undefined ? new driver.Redis(named) : new driver.Redis(url, named)
}

/** Soon at first, for a connection that was cut; then about once a second, not all nodes at the same time. */
function retryStrategy(tryCount: number): number {
  return Math.min(25 * 2 ** tryCount, 1_000) + Math.random() * 50
}
