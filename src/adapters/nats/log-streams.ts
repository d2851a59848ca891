import { IMError } from '../../errors.ts'
import { nanos, Refusal, type JetStream, JetStreamFailure, type StreamConfig, type StreamInfo } from './jetstream.ts'
import { DUPLICATE_WINDOW_MS, streamName, subjectName, type LogLimits } from './log-options.ts'

const MIN_SERVER = [2, 9, 0] as const
/** Headers and subject of an entry, which count in `max_payload`. */
export const ENVELOPE_BYTES = 1_024
/** How long one request waits before it is made again. */
const ASK_TIMEOUT_MS = 2_000

/** Until when to go on trying, and what has been told meanwhile. */
export interface Patience {
  /** @throws (rejects) when the time is over or the replicator was closed */
  pause(ms: number, because: unknown): Promise<void>
  /** of milliseconds wanted, those that are left */
  atMost(ms: number): number
}

/** @throws IM_LOG_UNFIT */
export function checkServer(info: { version?: string; max_payload?: number } | undefined, limits: LogLimits): void {
  const { version = '', max_payload: maxPayloadBytes = 0 } = info ?? {}
  const parts = version.split('.').map((part) => Number.parseInt(part, 10))
  const difference = MIN_SERVER.map((wanted, i) => (parts[i] ?? 0) - wanted).find((each) => each !== 0) ?? 0
  if (!(difference >= 0)) throw unfit(`nats-server ${version} is older than ${MIN_SERVER.join('.')}`)
  if (maxPayloadBytes < limits.maxEntryBytes + ENVELOPE_BYTES) {
    throw unfit(`max_payload of the server is ${maxPayloadBytes}; entries of ${limits.maxEntryBytes} bytes need ${limits.maxEntryBytes + ENVELOPE_BYTES}`)
  }
}

/**
 * Create the streams that are not there, and check those that are. Several nodes may do so at once: the first stream says in
 * its description how many there are, so that nodes that disagree about it meet there.
 * @throws IM_LOG_UNFIT, or what `patience` throws
 */
export async function ensureStreams(jetStream: JetStream, limits: LogLimits, patience: Patience): Promise<void> {
  for (let partition = 0; partition < limits.partitionCount; partition++) {
    const wanted = configOf(limits, partition)
    const info = await insist(patience, limits, () => ensureStream(jetStream, wanted, patience))
    checkStream(info.config, wanted)
  }
}

/** Ask until there is an answer, as long as one may come. */
export async function insist<T>(patience: Patience, limits: LogLimits, ask: () => Promise<T>): Promise<T> {
  for (let pauseMs = 50; ; pauseMs = Math.min(1_000, 2 * pauseMs)) {
    try {
      return await ask()
    } catch (error) {
      throwIfHopeless(error, limits)
      await patience.pause(pauseMs, error)
    }
  }
}

async function ensureStream(jetStream: JetStream, wanted: StreamConfig, patience: Patience): Promise<StreamInfo> {
  try {
    return await jetStream.streamInfo(wanted.name, patience.atMost(ASK_TIMEOUT_MS))
  } catch (error) {
    if (!isRefusal(error, Refusal.StreamNotFound)) throw error
  }
  try {
    return await jetStream.createStream(wanted, patience.atMost(2 * ASK_TIMEOUT_MS))
  } catch (error) {
    // Another node has been faster: what it has made is looked at.
    if (!isRefusal(error, Refusal.StreamNameInUse)) throw error
    return jetStream.streamInfo(wanted.name, patience.atMost(ASK_TIMEOUT_MS))
  }
}

export function configOf(limits: LogLimits, partition: number): StreamConfig {
  return {
    name: streamName(limits, partition),
    description: descriptionOf(limits, partition),
    subjects: [subjectName(limits, partition)],
    retention: 'limits',
    storage: 'file',
    discard: 'old',
    num_replicas: limits.replicaCount,
    max_age: nanos(limits.maxAgeMs),
    max_bytes: limits.maxBytes,
    max_msgs: -1,
    max_msg_size: -1,
    duplicate_window: nanos(DUPLICATE_WINDOW_MS),
    deny_delete: true,
    deny_purge: true,
  }
}

function descriptionOf({ partitionCount }: LogLimits, partition: number): string {
  return `imengine log, format 1, partition ${partition} of ${partitionCount}`
}

/** @throws IM_LOG_UNFIT when a stream is not what all nodes must find. How long it keeps its entries is the operator's to change. */
function checkStream(found: StreamConfig, wanted: StreamConfig): void {
  const differences = [
    found.description === wanted.description ? undefined : `its description is ${JSON.stringify(found.description ?? '')}, not ${JSON.stringify(wanted.description)}: do all nodes have the same partitions?`,
    differ('subjects', (found.subjects ?? []).join(' '), (wanted.subjects ?? []).join(' ')),
    differ('replicas', found.num_replicas, wanted.num_replicas),
    differ('storage', found.storage, wanted.storage),
    differ('retention', found.retention, wanted.retention),
    differ('discard', found.discard, wanted.discard),
    differ('deny_delete', found.deny_delete ?? false, true),
    differ('deny_purge', found.deny_purge ?? false, true),
    differ('no_ack', found.no_ack ?? false, false),
    differ('sealed', found.sealed ?? false, false),
    found.max_msg_size === undefined || found.max_msg_size === -1 ? undefined : 'max_msg_size is bounded',
    (found.duplicate_window ?? 0) < wanted.duplicate_window! ? `duplicate_window is shorter than ${wanted.duplicate_window! / 1e9} s` : undefined,
    found.mirror === undefined && (found.sources ?? []).length === 0 ? undefined : 'it copies other streams',
    found.subject_transform === undefined ? undefined : 'it has a subject_transform',
  ]
  const [difference] = differences.filter((each) => each !== undefined)
  if (difference !== undefined) throw unfit(`stream ${wanted.name}: ${difference}`)
}

function differ<T>(what: string, found: T, wanted: T): string | undefined {
  return found === wanted ? undefined : `${what} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`
}

/** @throws IM_LOG_UNFIT for what does not become better by waiting */
function throwIfHopeless(error: unknown, { replicaCount }: LogLimits): void {
  if (!(error instanceof JetStreamFailure)) throw error
  const { kind, code } = error
  if (kind === 'denied') throw unfit('the account may not use the JetStream API', error)
  if (kind !== 'refused') return
  if (code === Refusal.NotEnabledForAccount || code === Refusal.NotEnabled) throw unfit('JetStream is off', error)
  if (code === Refusal.ReplicasNotSupported) throw unfit(`one server alone keeps no ${replicaCount} replicas`, error)
  if (code === Refusal.StorageExceeded) throw unfit('there is not enough room for maxBytes', error)
  if (code === Refusal.SubjectsOverlap) throw unfit('another stream takes the subjects of the log', error)
}

/** What it means that waiting came to its end with this. */
export function endOfPatience(because: unknown, limits: LogLimits): IMError {
  if (because instanceof IMError) return because
  if (isRefusal(because, Refusal.NoPeers) || isRefusal(because, Refusal.InsufficientResources)) {
    return unfit(`there are not ${limits.replicaCount} servers with room for the log`, because)
  }
  const isSilent = because instanceof JetStreamFailure && because.kind === 'no-responders'
  return new IMError('IM_CLUSTER_UNAVAILABLE', {
    detail: isSilent ? 'JetStream does not answer: is it on, and is a majority of the servers there?' : `within ${limits.startTimeoutMs} ms: is a majority of the servers there?`,
    cause: because,
  })
}

export function isRefusal(error: unknown, code: number): error is JetStreamFailure {
  return error instanceof JetStreamFailure && error.code === code
}

function unfit(detail: string, cause?: unknown): IMError {
  return new IMError('IM_LOG_UNFIT', { detail, ...(cause === undefined ? {} : { cause }) })
}
