import type { Redis, RedisOptions } from 'ioredis'
import { badOption, integerBetween, onlyKnown, type IMError } from '../../errors.ts'

/** Exactly one of `url`, `options` and `client` says where Redis is. */
export interface RedisClusterOptions {
  /** redis:, rediss: (TLS), or the path of a Unix socket; may hold user, password and database */
  readonly url?: string
  /** Options of ioredis: host, port, tls, sentinels, username, password, db, … What the adapter relies on it sets itself. */
  readonly options?: RedisOptions
  /** A client of yours whose options are copied. It is neither used nor closed. */
  readonly client?: Redis
  /** default 'imengine:': what every key and every channel begins with. Nodes with the same one are one cluster. */
  readonly prefix?: string
  /** default 5000, 1 to 600 000: what comes before Redis is connected for the first time waits so long at most */
  readonly connectTimeoutMs?: number
  /** default 500, 0 to 600 000: what comes after Redis was lost waits for it so long, from then on; later it fails at once */
  readonly reconnectGraceMs?: number
  /** default 1000, 1 to 600 000: one answer of Redis */
  readonly commandTimeoutMs?: number
  /** default 5000, 10 to 600 000: how often a connection is asked whether it is still there */
  readonly checkIntervalMs?: number
  /** default 10 000, 1 to 1 000 000: calls waiting for Redis to be connected; the next one fails */
  readonly maxWaitingCount?: number
  /**
   * default 60 000, 1 to 3 600 000: how long a node is shown that has announced connections and not sent a heartbeat. More
   * than `presenceHeartbeatMs`.
   */
  readonly firstHeartbeatMs?: number
  /** default 2000, 1 to 600 000: how long one push or kick waits for the other node; the engine tries again within its own time */
  readonly answerTimeoutMs?: number
  /** default 10 000, 1 to 1 000 000: pushes and kicks that wait for another node; the next one fails */
  readonly maxCallCount?: number
  /**
   * default 16 MiB, 1 KiB to 1 GiB: bytes of pushes that wait for other nodes, and of pushes of one other node that wait for
   * this one. A push that does not fit fails. Redis cuts a subscriber off that has 32 MiB before it (client-output-buffer-limit).
   */
  readonly maxCallBytes?: number
  /** default 1 MiB, 1 KiB to 64 MiB: one PUBLISH; a longer push travels in several */
  readonly maxPublishBytes?: number
  /** What no caller hears of: lost connections, messages that could not be read. Must not throw. */
  readonly onError?: (error: IMError) => void
}

export type CheckedOptions = Required<Omit<RedisClusterOptions, 'url' | 'options' | 'client'>> &
  Pick<RedisClusterOptions, 'url' | 'options' | 'client'>

const MEBIBYTE = 1_048_576

const KNOWN: readonly (keyof RedisClusterOptions)[] = [
  'url', 'options', 'client', 'prefix', 'connectTimeoutMs', 'reconnectGraceMs', 'commandTimeoutMs', 'checkIntervalMs',
  'maxWaitingCount', 'firstHeartbeatMs', 'answerTimeoutMs', 'maxCallCount', 'maxCallBytes', 'maxPublishBytes', 'onError',
]

/** @throws TypeError */
export function checkOptions(given: RedisClusterOptions): CheckedOptions {
  if (typeof given !== 'object' || given === null) badOption('options', '{ url }, { options } or { client }', given)
  onlyKnown('redisCluster', given, KNOWN)
  const { url, options, client, prefix = 'imengine:', onError = () => undefined } = given
  if ([url, options, client].filter((value) => value !== undefined).length !== 1) {
    throw new TypeError('imengine: redisCluster needs one of url, options and client')
  }
  if (url !== undefined && !isRedisURL(url)) {
    // Not quoted: it may hold a password.
    throw new TypeError('imengine: url must be a redis: or rediss: URL, or the path of a Unix socket')
  }
  if (options !== undefined && (typeof options !== 'object' || options === null)) badOption('options', 'options of ioredis', options)
  if (client !== undefined && (typeof client?.duplicate !== 'function' || client.isCluster)) {
    badOption('client', 'a Redis of ioredis, and no Cluster', client)
  }
  if (typeof prefix !== 'string' || prefix === '') badOption('prefix', 'a text that is not empty', prefix)
  if (typeof onError !== 'function') badOption('onError', 'a function', onError)
  const count = (name: keyof RedisClusterOptions, fallback: number, least: number, most: number): number =>
    integerBetween(name, given[name] ?? fallback, least, most)
  return {
    ...(url === undefined ? {} : { url }),
    ...(options === undefined ? {} : { options }),
    ...(client === undefined ? {} : { client }),
    prefix,
    onError,
    connectTimeoutMs: count('connectTimeoutMs', 5_000, 1, 600_000),
    reconnectGraceMs: count('reconnectGraceMs', 500, 0, 600_000),
    commandTimeoutMs: count('commandTimeoutMs', 1_000, 1, 600_000),
    checkIntervalMs: count('checkIntervalMs', 5_000, 10, 600_000),
    maxWaitingCount: count('maxWaitingCount', 10_000, 1, 1_000_000),
    firstHeartbeatMs: count('firstHeartbeatMs', 60_000, 1, 3_600_000),
    answerTimeoutMs: count('answerTimeoutMs', 2_000, 1, 600_000),
    maxCallCount: count('maxCallCount', 10_000, 1, 1_000_000),
    maxCallBytes: count('maxCallBytes', 16 * MEBIBYTE, 1024, 1024 * MEBIBYTE),
    maxPublishBytes: count('maxPublishBytes', MEBIBYTE, 1024, 64 * MEBIBYTE),
  }
}

function isRedisURL(url: unknown): boolean {
  if (typeof url !== 'string') return false
  if (url.startsWith('/')) return true
  try {
    const { protocol, username, password } = new URL(url)
    decodeURIComponent(`${username}${password}`)
    return protocol === 'redis:' || protocol === 'rediss:'
  } catch {
    return false
  }
}
