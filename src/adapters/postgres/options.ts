import { badOption, integerBetween, onlyKnown } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import type { AnyPool } from './database.ts'
import type { Retention } from './sweeper.ts'

const MEBIBYTE = 1 << 20

const SYNCHRONOUS_COMMIT = ['on', 'off', 'local', 'remote_write', 'remote_apply'] as const

export interface PostgresStorageOptions {
  /** where the server is, e.g. `postgres://im:secret@db.example/chat`. This or `pool` */
  readonly connectionString?: string
  /** a `pg.Pool`, which the host closes at the end; its limits are the host's, and `maxConnections` and `synchronousCommit` are not used */
  readonly pool?: AnyPool
  /** the schema that holds the tables, made when it is not there; default 'imengine' */
  readonly schema?: string
  /** whose outbox it is; default 'default'. Every engine with a webhook needs one of its own, the same after a restart */
  readonly instance?: string
  /** connections of this process, 2 .. 1000, default 10 */
  readonly maxConnections?: number
  /** how long a connection may take to be made or to become free, 1 .. 600 000, default 5000 */
  readonly connectTimeoutMs?: number
  /** how long one statement may take, 1 .. 600 000, default 10 000; one second later the connection is given up */
  readonly statementTimeoutMs?: number
  /** what a commit waits for; default: what the server, the database or the role says */
  readonly synchronousCommit?: (typeof SYNCHRONOUS_COMMIT)[number]
  /** how much a channel keeps; the same for all, or a function of the channel. Default: everything */
  readonly retention?: Retention | ((key: ChannelKey) => Retention | undefined)
  /** how long a clientMsgNo is recognised; default 0: for as long as its message is there */
  readonly dedupeKeepMs?: number
  /** statements that append at the same time, 1 .. 100, default 2; each holds a connection */
  readonly maxAppendStatements?: number
  /** messages of one of them, 1 .. 10 000, default 512 */
  readonly maxBatchCount?: number
  /** bytes of one of them, default 4 MiB; a call alone may be larger */
  readonly maxBatchBytes?: number
  /** what may wait to be appended, and as much to be added to the outbox, default 64 MiB; beyond it: IM_QUEUE_FULL */
  readonly maxPendingBytes?: number
  /** calls that may wait for a connection, default 10 000; beyond it: IM_QUEUE_FULL */
  readonly maxWaitingCount?: number
  /** channels whose numbers are kept in memory, default 100 000 */
  readonly maxCachedChannels?: number
  /** decides what has expired; default Date.now */
  readonly nowMs?: () => number
}

type Numbers =
  | 'maxConnections' | 'connectTimeoutMs' | 'statementTimeoutMs' | 'dedupeKeepMs' | 'maxAppendStatements' | 'maxBatchCount' | 'maxBatchBytes'
  | 'maxPendingBytes' | 'maxWaitingCount' | 'maxCachedChannels'

export interface CheckedOptions extends Readonly<Record<Numbers, number>> {
  readonly connectionString: string | undefined
  readonly pool: AnyPool | undefined
  readonly schema: string
  readonly instance: string
  readonly synchronousCommit: string | undefined
  readonly retention: ((key: ChannelKey) => Retention | undefined) | undefined
  readonly nowMs: () => number
}

const LIMITS: Readonly<Record<Numbers, readonly [fallback: number, least: number, most: number]>> = {
  maxConnections: [10, 2, 1_000],
  connectTimeoutMs: [5_000, 1, 600_000],
  statementTimeoutMs: [10_000, 1, 600_000],
  dedupeKeepMs: [0, 0, Number.MAX_SAFE_INTEGER],
  maxAppendStatements: [2, 1, 100],
  maxBatchCount: [512, 1, 10_000],
  maxBatchBytes: [4 * MEBIBYTE, 1, 256 * MEBIBYTE],
  maxPendingBytes: [64 * MEBIBYTE, 1, Number.MAX_SAFE_INTEGER],
  maxWaitingCount: [10_000, 1, Number.MAX_SAFE_INTEGER],
  maxCachedChannels: [100_000, 1, Number.MAX_SAFE_INTEGER],
}

const KNOWN: readonly (keyof PostgresStorageOptions)[] = [
  'connectionString', 'pool', 'schema', 'instance', 'synchronousCommit', 'retention', 'nowMs', ...(Object.keys(LIMITS) as Numbers[]),
]

/** @throws TypeError naming what is wrong, and never showing a connection string */
export function checkOptions(options: PostgresStorageOptions): CheckedOptions {
  if (typeof options !== 'object' || options === null) badOption('options', '{ connectionString } or { pool }', options)
  onlyKnown('postgresStorage', options, KNOWN)
  const { connectionString, pool, schema = 'imengine', instance = 'default', synchronousCommit, retention, nowMs = Date.now } = options
  if ((connectionString === undefined) === (pool === undefined)) badOption('options', '{ connectionString } or { pool }, and not both', options)
  if (connectionString !== undefined && (typeof connectionString !== 'string' || connectionString === '')) {
    badOption('connectionString', 'a text that says where the server is', typeof connectionString)
  }
  if (pool !== undefined && (typeof pool !== 'object' || pool === null || typeof pool.connect !== 'function')) badOption('pool', 'a pg.Pool', pool)
  // The server would cut a longer name.
  if (!isText(schema, 63) || schema.startsWith('pg_')) badOption('schema', 'a name of at most 63 bytes that does not begin with pg_', schema)
  if (!isText(instance, 200)) badOption('instance', 'a text of 1 to 200 bytes', instance)
  if (synchronousCommit !== undefined && !SYNCHRONOUS_COMMIT.includes(synchronousCommit)) {
    badOption('synchronousCommit', SYNCHRONOUS_COMMIT.map((known) => `'${known}'`).join(' or '), synchronousCommit)
  }
  if (typeof nowMs !== 'function') badOption('nowMs', 'a function', nowMs)
  if (retention !== undefined && typeof retention !== 'function') checkRetention(retention)
  const numbers = Object.entries(LIMITS).map(([name, [fallback, least, most]]) => [name, integerBetween(name, options[name as Numbers] ?? fallback, least, most)])
  return {
    ...(Object.fromEntries(numbers) as Record<Numbers, number>),
    connectionString,
    pool,
    schema,
    instance,
    synchronousCommit,
    retention: retention === undefined || typeof retention === 'function' ? retention : () => retention,
    nowMs,
  }
}

function isText(value: unknown, maxBytes: number): value is string {
  return typeof value === 'string' && value !== '' && !value.includes('\0') && value.isWellFormed() && Buffer.byteLength(value) <= maxBytes
}

function checkRetention(retention: Retention): void {
  if (typeof retention !== 'object' || retention === null) badOption('retention', '{ maxAgeMs, maxCount } or a function', retention)
  onlyKnown('retention', retention, ['maxAgeMs', 'maxCount'])
  const { maxAgeMs, maxCount } = retention
  if (maxAgeMs !== undefined) integerBetween('retention.maxAgeMs', maxAgeMs, 1, Number.MAX_SAFE_INTEGER)
  if (maxCount !== undefined) integerBetween('retention.maxCount', maxCount, 1, Number.MAX_SAFE_INTEGER)
}
