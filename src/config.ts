import type { AuthorizeSend } from './contracts/authorize-send.ts'
import type { Clock } from './contracts/clock.ts'
import type { IsOffline } from './contracts/facts.ts'
import type { KickPolicy } from './contracts/kick-policy.ts'
import type { Logger } from './contracts/logger.ts'
import type { PeerPush } from './contracts/peer-push.ts'
import type { Presence } from './contracts/presence.ts'
import type { Random } from './contracts/random.ts'
import type { Replicator } from './contracts/replicator.ts'
import type { Storage } from './contracts/storage.ts'
import type { TokenVerifier } from './contracts/token-verifier.ts'
import type { Webhook, WebhookEvent } from './contracts/webhook.ts'
import { badOption, integerBetween, onlyKnown } from './errors.ts'

/** Everything an engine can be told. Only `tokenVerifier` has no default. */
export interface IMEngineOptions {
  /** who may connect; `allowAnyToken()` opens the door to everyone, for development */
  readonly tokenVerifier: TokenVerifier
  /** 0 .. 1022, another for every engine of a cluster; part of every message id; default 1 */
  readonly nodeID?: number
  /** where messages, channels and cursors live; default `memoryStorage()`, which forgets everything with the process */
  readonly storage?: Storage
  readonly webhook?: Webhook
  /** needed with more than one node only */
  readonly presence?: Presence
  readonly replicator?: Replicator
  readonly peerPush?: PeerPush
  /** default: no output at all */
  readonly logger?: Logger
  readonly clock?: Clock
  readonly random?: Random
  /** 'committed' (default): SENDACK after the message is stored, with its seq. 'accepted': before, with seq 0; a crash may lose it */
  readonly ack?: 'committed' | 'accepted'
  /** what becomes of a client without an encryption key: refused (default), or served in the clear, for use under TLS */
  readonly plaintext?: 'refuse' | 'allow'
  /**
   * what encrypts payloads: WebAssembly, twice as fast for messages of usual length, and node:crypto where that
   * cannot be had ('auto', the default); or one of them always. 'wasm' where it cannot be had is a TypeError. See SECURITY.md
   */
  readonly payloadCrypto?: 'auto' | 'wasm' | 'node'
  /** a client that does not read: cut it (default), or leave out pushes that it finds in the history later */
  readonly slowConsumer?: 'disconnect' | 'skip'
  /** which older connections a login ends; default: the protocol's rules */
  readonly kickPolicy?: KickPolicy
  /**
   * What a user gets at login of the messages that came while they were away. 'push': what no device of theirs has
   * acknowledged, oldest first, within `maxReplayPerChannel` and `maxReplay`; the default, but for an engine with a
   * `replicator` that has no `operate`, where positions are not shared. 'none': nothing, the client asks the host for what it misses
   */
  readonly offline?: 'push' | 'none'
  /**
   * What becomes of the clients of a node that has lost the others, so that it can acknowledge nothing and hears of nothing: their
   * connections are closed and new ones refused until it has them again, so that SDKs go elsewhere ('close', the default); or they
   * stay, SENDs get 18, and the fact `isolated` is all that tells of it ('keep')
   */
  readonly whenIsolated?: 'close' | 'keep'
  /** for the fact `offlineMessage`: who counts as offline; default: whoever has no connection */
  readonly isOffline?: IsOffline
  /** who may send where; default `sendPolicy()`: the protocol's rules */
  readonly authorizeSend?: AuthorizeSend
  /** users whom no check but "the channel is disbanded" stops */
  readonly systemUIDs?: readonly string[]
  /** numbers, see `LIMITS` for defaults and units */
  readonly limits?: Partial<Limits>
}

interface LimitRule {
  readonly default: number
  readonly min: number
  readonly max: number
}

/**
 * Every bound and time-out: default, least, most. 0 switches a limit off where 0 is allowed. What happens at each bound
 * stands in `docs/limits.md`; a test holds the two lists equal.
 */
export const LIMITS = {
  connectTimeoutMs: { default: 2_000, min: 1, max: 600_000 },
  authTimeoutMs: { default: 5_000, min: 1, max: 600_000 },
  idleTimeoutMs: { default: 180_000, min: 1, max: 86_400_000 },
  kickLingerMs: { default: 2_000, min: 0, max: 60_000 },
  closeTimeoutMs: { default: 5_000, min: 1, max: 600_000 },
  stepTimeoutMs: { default: 5_000, min: 1, max: 600_000 },
  webhookTimeoutMs: { default: 3_000, min: 1, max: 600_000 },
  replicateTimeoutMs: { default: 5_000, min: 1, max: 600_000 },
  peerPushTimeoutMs: { default: 5_000, min: 1, max: 600_000 },
  peerKickTimeoutMs: { default: 1_000, min: 1, max: 600_000 },
  presenceTimeoutMs: { default: 1_000, min: 1, max: 600_000 },
  presenceHeartbeatMs: { default: 5_000, min: 1, max: 600_000 },
  redeliverAfterMs: { default: 60_000, min: 0, max: 86_400_000 },
  maxRedeliveries: { default: 5, min: 0, max: 1_000 },
  cursorFlushMs: { default: 1_000, min: 1, max: 600_000 },
  sweepIntervalMs: { default: 60_000, min: 0, max: 86_400_000 },
  webhookBatchMs: { default: 100, min: 0, max: 60_000 },
  webhookRetryMs: { default: 500, min: 1, max: 60_000 },
  webhookRetryForMs: { default: 86_400_000, min: 0, max: 2_592_000_000 },
  timerTickMs: { default: 100, min: 1, max: 10_000 },

  maxFrameBytes: { default: 1_048_576, min: 256, max: 1_048_576 },
  maxPayloadBytes: { default: 32_767, min: 1, max: 1_048_576 },
  maxConnections: { default: 200_000, min: 1, max: 10_000_000 },
  maxConnectionsPerUID: { default: 100, min: 1, max: 1_000_000 },
  maxUnauthenticated: { default: 10_000, min: 1, max: 10_000_000 },
  maxUnauthenticatedBytes: { default: 262_144, min: 256, max: 16_777_216 },
  maxConnectionsPerAddress: { default: 0, min: 0, max: 10_000_000 },
  maxSendsPerSecond: { default: 0, min: 0, max: 1_000_000 },
  maxSendsPerSecondPerUID: { default: 0, min: 0, max: 1_000_000 },
  maxUnackedRecvs: { default: 1_024, min: 1, max: 1_000_000 },
  maxReplayPerChannel: { default: 200, min: 1, max: 1_000_000 },
  maxReplay: { default: 1_000, min: 1, max: 1_000_000 },
  maxConcurrentReplays: { default: 32, min: 1, max: 10_000 },
  maxOutboundBytes: { default: 4_194_304, min: 1_024, max: 1_073_741_824 },

  maxQueuedPerUser: { default: 1_024, min: 1, max: 10_000_000 },
  maxQueuedPerChannel: { default: 10_000, min: 1, max: 10_000_000 },
  maxQueued: { default: 200_000, min: 1, max: 100_000_000 },
  maxQueuedBytesPerKey: { default: 16_777_216, min: 1_024, max: 4_294_967_296 },
  maxQueuedBytes: { default: 134_217_728, min: 1_024, max: 17_179_869_184 },
  maxBatchCount: { default: 512, min: 1, max: 100_000 },

  maxRecentMessages: { default: 50_000, min: 1, max: 10_000_000 },
  maxRecentBytes: { default: 67_108_864, min: 1_024, max: 17_179_869_184 },
  subscriberCacheMs: { default: 5_000, min: 0, max: 86_400_000 },
  permissionCacheMs: { default: 5_000, min: 0, max: 86_400_000 },
  maxCachedPermissions: { default: 100_000, min: 1, max: 10_000_000 },
  maxCachedChannels: { default: 10_000, min: 1, max: 10_000_000 },
  maxCachedMembers: { default: 10_000, min: 0, max: 10_000_000 },
  subscriberPageCount: { default: 1_000, min: 1, max: 10_000 },
  maxMembersPerCall: { default: 10_000, min: 1, max: 1_000_000 },
  maxTrackedDeliveries: { default: 100_000, min: 1, max: 10_000_000 },
  maxPeerPushes: { default: 10_000, min: 1, max: 10_000_000 },
  maxPluginSendDepth: { default: 8, min: 1, max: 1_000 },
  maxWebhookNotifications: { default: 100_000, min: 1, max: 10_000_000 },
  webhookBatchCount: { default: 100, min: 1, max: 10_000 },
  stepTimesEvery: { default: 64, min: 0, max: 1_000_000 },
  storageFailureMs: { default: 10_000, min: 0, max: 600_000 },
  maxLogLinesPerSecond: { default: 20, min: 0, max: 1_000_000 },
  tracedMessages: { default: 0, min: 0, max: 1_000_000 },
  maxLogLag: { default: 1_000, min: 1, max: 10_000_000 },
} as const satisfies Record<string, LimitRule>

export type Limits = { readonly [K in keyof typeof LIMITS]: number }

const contractMethods = {
  webhook: [],
  presence: ['online', 'offline', 'locate', 'devices', 'heartbeat', 'leave'],
  replicator: ['start', 'propose', 'close'],
  peerPush: ['start', 'push', 'kick', 'close'],
  logger: ['debug', 'info', 'warn', 'error'],
  clock: ['nowMs', 'monotonicMs', 'setTimer', 'clearTimer', 'defer'],
  random: ['bytes'],
} as const

const storageMethods = {
  messages: ['append', 'range', 'lastSeq', 'findByClientMsgNo', 'get', 'truncate', 'summaries', 'countAfter', 'personChannelsOf', 'revise'],
  channels: [
    'channel', 'putChannel', 'removeChannel', 'member', 'putMembers', 'removeMembers', 'members', 'channelsOf',
    'isListed', 'isListEmpty', 'addToList', 'removeFromList', 'listed', 'userFlags', 'setUserFlags',
  ],
  cursors: ['cursor', 'cursors', 'advance', 'put', 'remove', 'flush', 'hide', 'hidden'],
} as const

/** Parts of a storage that may be left out. */
const optionalStorageMethods = {
  tokens: ['token', 'putToken', 'removeToken'],
  outbox: ['add', 'list', 'remove', 'count'],
} as const
const webhookEvents: readonly string[] = ['msg.notify', 'msg.offline', 'user.onlinestatus'] satisfies WebhookEvent['event'][]

const choices = {
  ack: ['committed', 'accepted'],
  plaintext: ['refuse', 'allow'],
  payloadCrypto: ['auto', 'wasm', 'node'],
  slowConsumer: ['disconnect', 'skip'],
  whenIsolated: ['close', 'keep'],
  offline: ['push', 'none'],
} as const

const known = [
  ...Object.keys(contractMethods), ...Object.keys(choices),
  'tokenVerifier', 'nodeID', 'storage', 'kickPolicy', 'isOffline', 'authorizeSend', 'systemUIDs', 'limits',
]

/**
 * Check what a host handed to `new IMEngine`.
 * @returns the limits with their defaults filled in
 * @throws TypeError naming the option, what was expected and what came
 */
export function checkOptions(options: IMEngineOptions): Limits {
  onlyKnown('options', options, known)
  if (typeof options.tokenVerifier !== 'function') {
    badOption('options.tokenVerifier', 'a function; allowAnyToken() lets everyone in', options.tokenVerifier)
  }
  if (options.nodeID !== undefined) integerBetween('options.nodeID', options.nodeID, 0, 1022)
  for (const [name, allowed] of Object.entries(choices)) {
    const value = options[name as keyof typeof choices]
    if (value !== undefined && !(allowed as readonly string[]).includes(value)) {
      badOption(`options.${name}`, allowed.map((choice) => `'${choice}'`).join(' or '), value)
    }
  }
  for (const [name, methods] of Object.entries(contractMethods)) {
    const value = options[name as keyof typeof contractMethods]
    if (value !== undefined) implementing(`options.${name}`, value, methods)
  }
  optionalFunctions('options.webhook', options.webhook, ['beforeSend', 'notify'])
  optionalFunctions('options.replicator', options.replicator, ['operate', 'gather', 'status', 'logOf'])
  const told: unknown = options.webhook?.events
  if (told !== undefined && !(Array.isArray(told) && told.every((event) => webhookEvents.includes(event as string)))) {
    badOption('options.webhook.events', `an array of ${webhookEvents.join(', ')}`, told)
  }
  if (options.storage !== undefined) {
    implementing('options.storage', options.storage, [])
    optionalFunctions('options.storage', options.storage, ['open', 'close'])
    for (const [part, methods] of Object.entries(storageMethods)) {
      implementing(`options.storage.${part}`, options.storage[part as keyof typeof storageMethods], methods)
    }
    optionalFunctions('options.storage.messages', options.storage.messages, ['sweep'])
    optionalFunctions('options.storage.channels', options.storage.channels, ['systemUIDs'])
    for (const [part, methods] of Object.entries(optionalStorageMethods)) {
      const value = options.storage[part as keyof typeof optionalStorageMethods]
      if (value !== undefined) implementing(`options.storage.${part}`, value, methods)
    }
  }
  for (const name of ['kickPolicy', 'isOffline', 'authorizeSend'] as const) {
    const value: unknown = options[name]
    if (value !== undefined && typeof value !== 'function') badOption(`options.${name}`, 'a function', value)
  }
  if (options.systemUIDs !== undefined && !isStringArray(options.systemUIDs)) {
    badOption('options.systemUIDs', 'an array of strings', options.systemUIDs)
  }
  return checkLimits(options.limits)
}

function checkLimits(given: Partial<Limits> | undefined): Limits {
  if (given !== undefined && (typeof given !== 'object' || given === null)) badOption('options.limits', 'an object', given)
  for (const [name, value] of Object.entries(given ?? {})) {
    if (!Object.hasOwn(LIMITS, name)) badOption(`options.limits.${name}`, 'left out: there is no such limit', value)
  }
  const limits = {} as Record<keyof Limits, number>
  for (const name of Object.keys(LIMITS) as (keyof Limits)[]) {
    const rule = LIMITS[name]
    const value = given?.[name]
    limits[name] = value === undefined ? rule.default : integerBetween(`options.limits.${name}`, value, rule.min, rule.max)
  }
  return limits
}

function implementing(option: string, value: unknown, methods: readonly string[]): void {
  if (typeof value !== 'object' || value === null) badOption(option, 'an object', value)
  for (const method of methods) {
    const member = (value as Record<string, unknown>)[method]
    if (typeof member !== 'function') badOption(`${option}.${method}`, 'a function', member)
  }
}

function optionalFunctions(option: string, value: object | undefined, methods: readonly string[]): void {
  for (const method of methods) {
    const member = (value as Record<string, unknown> | undefined)?.[method]
    if (member !== undefined && typeof member !== 'function') badOption(`${option}.${method}`, 'a function, or left out', member)
  }
}

function isStringArray(value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}
