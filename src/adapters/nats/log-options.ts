import { badOption, integerBetween, type IMError } from '../../errors.ts'

/** How the log is kept and followed. All nodes of a cluster must be given the same first four. */
export interface NatsLogOptions {
  /** 1..64 letters, digits, `-` or `_`: its streams are `<name>_log_0`, `<name>_log_1` …, their subjects `<name>.log.0` … */
  readonly name: string
  /** default 1, 1..64: how many streams the channels are spread over. Cannot be changed later */
  readonly partitions?: number
  /** default 1, 1..5: on how many servers each stream is; 3 is what survives the loss of one */
  readonly replicas?: number
  /** default 7 days, 120 000 or more: entries older than this go. A node that was away for longer cannot catch up from the log; 0: no limit */
  readonly maxAgeMs?: number
  /** default 1 GiB for each stream, on each of its servers: beyond it the oldest entries go */
  readonly maxBytes?: number
  /**
   * default 5 000: a node that has no connection for so long is isolated, and one that hears from none of the streams for three
   * times as long, because its server has lost the others; see the engine's option `whenIsolated`
   */
  readonly isolatedAfterMs?: number
  /** default 30 000: how long `start` waits for the servers and for what this node has missed */
  readonly startTimeoutMs?: number
  /** default 131 072: proposals that wait are gathered into entries of this size; a single larger message goes alone */
  readonly maxEntryBytes?: number
  /** default 1 024: messages in an entry */
  readonly maxEntryCount?: number
  /**
   * default 48, 0..1 000: while most entries take 10 ms or more, and several messages wait, a node's entries are this long apart; messages
   * wait for half of it on average. 0: each leaves as soon as the one before it is answered, for more CPU
   */
  readonly entryPeriodMs?: number
  /** default 4: entries of a partition that are on their way to the servers; one that could hold more waits for all before it */
  readonly maxInFlightCount?: number
  /** default 10 000: messages of a partition that wait for their apply; beyond it IM_QUEUE_FULL */
  readonly maxQueueCount?: number
  /** default 64 MiB: the same in bytes */
  readonly maxQueueBytes?: number
  /** default 1 000: entries of a partition that have arrived or been asked for and are not applied yet */
  readonly maxApplyCount?: number
  /** default 8 MiB: the same in bytes. At least one entry of the servers' `max_payload` is asked for whatever it is */
  readonly maxApplyBytes?: number
  /** default 1 000: a try to publish that has no answer by then is made again */
  readonly publishTimeoutMs?: number
  /** called for everything that keeps a partition from going on. It must not throw */
  readonly onProblem?: (problem: LogProblem) => void
  /**
   * What this node missed is no longer in the log: bring its store to a later position by other means than the snapshot of another
   * node, which is what it gets at its start otherwise.
   * @returns the index of the last entry that the store holds now, at least `fromIndex - 1`. Without it the partition stops.
   */
  readonly recover?: (log: string, fromIndex: number) => Promise<number>
}

export interface LogProblem {
  readonly error: IMError
  /** which stream; undefined when it concerns all of them */
  readonly log: string | undefined
  /** it will not go on by itself */
  readonly isStopped: boolean
}

export interface LogLimits {
  readonly name: string
  readonly partitionCount: number
  readonly replicaCount: number
  readonly maxAgeMs: number
  readonly maxBytes: number
  readonly isolatedAfterMs: number
  readonly startTimeoutMs: number
  readonly maxEntryBytes: number
  readonly maxEntryCount: number
  readonly entryPeriodMs: number
  readonly maxInFlightCount: number
  readonly maxQueueCount: number
  readonly maxQueueBytes: number
  readonly maxApplyCount: number
  readonly maxApplyBytes: number
  readonly publishTimeoutMs: number
}

/** A publish is repeated for no longer than half of this, so that the servers still know the first try. */
export const DUPLICATE_WINDOW_MS = 120_000
const DAY_MS = 86_400_000
const MAX_BYTES = 2 ** 50

/** @throws TypeError for an option out of its range */
export function checkLogOptions(options: NatsLogOptions): LogLimits {
  const { name, replicas = 1, maxAgeMs = 7 * DAY_MS, onProblem, recover } = options
  if (typeof name !== 'string' || !/^[\w-]{1,64}$/.test(name)) badOption('name', 'of 1 to 64 letters, digits, - or _', name)
  if (onProblem !== undefined && typeof onProblem !== 'function') badOption('onProblem', 'a function', onProblem)
  if (recover !== undefined && typeof recover !== 'function') badOption('recover', 'a function', recover)
  return {
    name,
    partitionCount: integerBetween('partitions', options.partitions ?? 1, 1, 64),
    replicaCount: integerBetween('replicas', replicas, 1, 5),
    // The servers want it to be no shorter than their memory of what has been published.
    maxAgeMs: maxAgeMs === 0 ? 0 : integerBetween('maxAgeMs', maxAgeMs, DUPLICATE_WINDOW_MS, 36_500 * DAY_MS),
    maxBytes: integerBetween('maxBytes', options.maxBytes ?? 2 ** 30, 2 ** 20, MAX_BYTES),
    isolatedAfterMs: integerBetween('isolatedAfterMs', options.isolatedAfterMs ?? 5_000, 1, 3_600_000),
    startTimeoutMs: integerBetween('startTimeoutMs', options.startTimeoutMs ?? 30_000, 1, 3_600_000),
    maxEntryBytes: integerBetween('maxEntryBytes', options.maxEntryBytes ?? 131_072, 1_024, 2 ** 26),
    maxEntryCount: integerBetween('maxEntryCount', options.maxEntryCount ?? 1_024, 1, 65_535),
    entryPeriodMs: integerBetween('entryPeriodMs', options.entryPeriodMs ?? 48, 0, 1_000),
    maxInFlightCount: integerBetween('maxInFlightCount', options.maxInFlightCount ?? 4, 1, 64),
    maxQueueCount: integerBetween('maxQueueCount', options.maxQueueCount ?? 10_000, 1, 10_000_000),
    maxQueueBytes: integerBetween('maxQueueBytes', options.maxQueueBytes ?? 2 ** 26, 1_024, 2 ** 40),
    maxApplyCount: integerBetween('maxApplyCount', options.maxApplyCount ?? 1_000, 1, 100_000),
    maxApplyBytes: integerBetween('maxApplyBytes', options.maxApplyBytes ?? 2 ** 23, 1_024, 2 ** 30),
    publishTimeoutMs: integerBetween('publishTimeoutMs', options.publishTimeoutMs ?? 1_000, 10, 60_000),
  }
}

export function streamName(limits: Pick<LogLimits, 'name'>, partition: number): string {
  return `${limits.name}_log_${partition}`
}

export function subjectName(limits: Pick<LogLimits, 'name'>, partition: number): string {
  return `${limits.name}.log.${partition}`
}
