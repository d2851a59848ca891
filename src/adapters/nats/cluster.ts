/**
 * Everything that joins nodes over NATS, as one object to spread into the engine's options. What happens on power loss, with slow
 * servers and on close is said by each part; they share one connection.
 */
import type { TlsOptions } from '@nats-io/transport-node'
import type { PeerPush } from '../../contracts/peer-push.ts'
import type { Presence } from '../../contracts/presence.ts'
import { badOption, integerBetween, onlyKnown, type IMError } from '../../errors.ts'
import { ClusterConnection } from './connection.ts'
import type { NatsLogOptions } from './log-options.ts'
import { NatsPeerPush } from './peer-push.ts'
import { NatsPresence } from './presence.ts'
import { NatsReplicator } from './replicator.ts'

const KNOWN: readonly (keyof NatsClusterOptions)[] = [
  'servers', 'name', 'replicas', 'partitions', 'log', 'user', 'pass', 'token', 'creds', 'tls', 'connectTimeoutMs', 'reconnectPauseMs', 'pingIntervalMs',
  'presenceStorage', 'presenceMaxAgeMs', 'presenceWriteTimeoutMs', 'maxPresenceWrites', 'peerBeatMs', 'peerCallTimeoutMs', 'maxPeerCalls',
  'maxPeerCallBytes', 'onError',
]

const KNOWN_OF_LOG: readonly (keyof NonNullable<NatsClusterOptions['log']>)[] = [
  'maxAgeMs', 'maxBytes', 'isolatedAfterMs', 'startTimeoutMs', 'maxEntryBytes', 'maxEntryCount', 'maxInFlightCount', 'maxQueueCount', 'maxQueueBytes',
  'maxApplyCount', 'maxApplyBytes', 'publishTimeoutMs', 'onProblem', 'recover',
]

export interface NatsClusterOptions {
  /** one or more of the NATS servers, as `nats://host:4222` or `host:4222`; the others are learnt from them */
  readonly servers: string | readonly string[]
  /** default 'imengine': clusters of other names on the same servers never meet; 1 to 32 of `A-Z a-z 0-9 _ -` */
  readonly name?: string
  /** copies of everything that JetStream keeps, 1 to 5; default 3 when three or more servers are named, otherwise 1 */
  readonly replicas?: number
  /** default 1, 1..64: how many streams the log is spread over. All nodes must say the same, and it cannot be changed later */
  readonly partitions?: number
  /** how the log is kept and followed; docs/cluster.md has the table */
  readonly log?: Omit<NatsLogOptions, 'name' | 'partitions' | 'replicas'>
  readonly user?: string
  readonly pass?: string
  readonly token?: string
  /** the text of a credentials file, with JWT and seed */
  readonly creds?: string
  /** as the driver takes it: `{ caFile, certFile, keyFile }`, or `{}` for the system's authorities */
  readonly tls?: TlsOptions
  /** default 5 000: for one try at one server, in milliseconds */
  readonly connectTimeoutMs?: number
  /** default 1 000: between two tries at one server, without end, in milliseconds */
  readonly reconnectPauseMs?: number
  /** default 3 000: a server that leaves two pings unanswered is left for another, in milliseconds */
  readonly pingIntervalMs?: number
  /** default 'memory': presence is void without the connections that it speaks of */
  readonly presenceStorage?: 'memory' | 'file'
  /** default 3 600 000: what has not been written for so long the servers drop; what lives is written three times as often */
  readonly presenceMaxAgeMs?: number
  /** default 2 000: from a login to its being written, in milliseconds; then the login fails */
  readonly presenceWriteTimeoutMs?: number
  /** default 512: writes under way; what comes meanwhile waits, and several changes of one user are one write */
  readonly maxPresenceWrites?: number
  /** default 1 000: how often nodes tell each other that they can be called, in milliseconds; silent for three is gone */
  readonly peerBeatMs?: number
  /** default 30 000: a call without an answer has failed, whatever its signal allows, in milliseconds */
  readonly peerCallTimeoutMs?: number
  /** default 10 000: calls that wait for an answer, and calls of others that wait here; further ones are refused */
  readonly maxPeerCalls?: number
  /** default 67 108 864: bytes of the same, each way */
  readonly maxPeerCallBytes?: number
  /** hears of what no call can be told: bytes that are no call, a bucket that cannot be followed. Must not throw. */
  readonly onError?: (error: IMError) => void
}

/** For `new IMEngine({ ...cluster })`. One engine uses it; each engine has its own. */
export interface NatsCluster {
  /** its `status()` tells how far this node is behind */
  readonly replicator: NatsReplicator
  readonly presence: Presence
  readonly peerPush: PeerPush
}

/**
 * What joins the nodes of a cluster, over NATS with JetStream (server 2.9 or newer). Nothing is connected before the engine starts.
 * @throws TypeError for wrong options. `start` of its parts rejects with IM_DRIVER_MISSING, IM_CLUSTER_UNAVAILABLE or
 *   IM_CLUSTER_DENIED, and with a TypeError when another running node has the same id
 */
export function natsCluster(options: NatsClusterOptions): NatsCluster {
  const checked = check(options)
  const { name, replicas, report, presenceStorage } = checked
  const connection = new ClusterConnection({ ...checked, clientName: `imengine ${name}` })
  const shared = { connection, name, replicas, report }
  return {
    replicator: new NatsReplicator(connection, logOptions(options, checked), checked.peers.peerBeatMs),
    presence: new NatsPresence({ ...shared, ...checked.presence, presenceStorage, nowMs: () => performance.now() }),
    peerPush: new NatsPeerPush({ ...shared, ...checked.peers }),
  }
}

function logOptions({ log = {}, partitions }: NatsClusterOptions, { name, replicas, report }: ReturnType<typeof check>): NatsLogOptions {
  if (typeof log !== 'object' || log === null) badOption('log', 'an object of options', log)
  onlyKnown('log', log, KNOWN_OF_LOG)
  if (log.onProblem !== undefined && typeof log.onProblem !== 'function') badOption('log.onProblem', 'a function', log.onProblem)
  const onProblem: NatsLogOptions['onProblem'] = (problem) => {
    report(problem.error)
    log.onProblem?.(problem)
  }
  return { ...log, name, replicas, onProblem, ...(partitions === undefined ? {} : { partitions }) }
}

function check(options: NatsClusterOptions) {
  if (typeof options !== 'object' || options === null) badOption('natsCluster', 'an object of options', options)
  onlyKnown('natsCluster', options, KNOWN)
  const { name = 'imengine', user, pass, token, creds, tls, presenceStorage = 'memory', onError } = options
  const servers = typeof options.servers === 'string' ? [options.servers] : options.servers
  if (!Array.isArray(servers) || servers.length === 0 || !servers.every((server) => typeof server === 'string' && server !== '')) {
    badOption('servers', 'one or more addresses of NATS servers', options.servers)
  }
  if (typeof name !== 'string' || !/^[\w-]{1,32}$/.test(name)) badOption('name', '1 to 32 of A-Z, a-z, 0-9, _ and -', name)
  if (presenceStorage !== 'memory' && presenceStorage !== 'file') badOption('presenceStorage', "'memory' or 'file'", presenceStorage)
  if (onError !== undefined && typeof onError !== 'function') badOption('onError', 'a function', onError)
  if (tls !== undefined && (typeof tls !== 'object' || tls === null)) badOption('tls', 'an object of TLS options', typeof tls)
  // Of a secret it is told that it is wrong, and never what it is.
  for (const [option, value] of Object.entries({ user, pass, token, creds })) {
    if (value !== undefined && typeof value !== 'string') badOption(option, 'a string', typeof value)
  }
  const between = (option: keyof NatsClusterOptions, byDefault: number, min: number, max: number): number =>
    integerBetween(option, options[option] ?? byDefault, min, max)
  return {
    servers: [...(servers as readonly string[])],
    name,
    user,
    pass,
    token,
    creds,
    tls,
    presenceStorage,
    report: onError ?? (() => undefined),
    replicas: between('replicas', servers.length >= 3 ? 3 : 1, 1, 5),
    connectTimeoutMs: between('connectTimeoutMs', 5_000, 100, 60_000),
    reconnectPauseMs: between('reconnectPauseMs', 1_000, 10, 60_000),
    pingIntervalMs: between('pingIntervalMs', 3_000, 100, 600_000),
    presence: {
      presenceMaxAgeMs: between('presenceMaxAgeMs', 3_600_000, 60_000, 604_800_000),
      presenceWriteTimeoutMs: between('presenceWriteTimeoutMs', 2_000, 10, 600_000),
      maxPresenceWrites: between('maxPresenceWrites', 512, 1, 100_000),
    },
    peers: {
      peerBeatMs: between('peerBeatMs', 1_000, 50, 60_000),
      peerCallTimeoutMs: between('peerCallTimeoutMs', 30_000, 100, 600_000),
      maxPeerCalls: between('maxPeerCalls', 10_000, 1, 10_000_000),
      maxPeerCallBytes: between('maxPeerCallBytes', 67_108_864, 65_536, 4_294_967_296),
    },
  }
}
