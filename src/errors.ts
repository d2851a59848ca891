/**
 * Every failure the engine names. A code never changes its meaning. `retryable` says whether the same call may succeed
 * later without anything being changed. `docs/errors.md` lists the same table for readers; a test holds the two equal.
 */
export const ERRORS = {
  IM_NOT_RUNNING: { message: 'the engine is not running', retryable: false },
  IM_ABORTED: { message: 'the caller gave up waiting', retryable: true },
  IM_HANDLER_FAILED: { message: 'a handler threw', retryable: true },
  IM_HANDLER_TIMEOUT: { message: 'a handler did not answer in time', retryable: true },
  IM_QUEUE_FULL: { message: 'a queue is at its bound', retryable: true },
  IM_REFUSED: { message: 'the message may not be sent', retryable: false },
  IM_SEND_FAILED: { message: 'the message was not stored', retryable: true },
  IM_SEND_DEPTH: { message: 'a plugin answers what plugins have sent, too many times over', retryable: false },
  IM_VERIFIER_FAILED: { message: 'the token verifier did not answer', retryable: true },
  IM_STORE_UNAVAILABLE: { message: 'the message store did not answer', retryable: true },
  IM_STORE_CONTRACT: { message: 'the message store broke its contract', retryable: false },
  IM_STORE_FULL: { message: 'the disk of the message store is full', retryable: true },
  IM_STORE_LOCKED: { message: 'the storage is in use by another process', retryable: true },
  IM_STORE_DENIED: { message: 'the storage may not be read or written', retryable: false },
  IM_STORE_CORRUPT: { message: 'the storage is damaged', retryable: false },
  IM_STORE_FORMAT: { message: 'the storage was written in a format this version does not know', retryable: false },
  IM_DRIVER_MISSING: { message: 'a package that an adapter needs is not installed', retryable: false },
  IM_MESSAGE_NOT_FOUND: { message: 'there is no such message', retryable: false },
  IM_CHANNEL_NOT_FOUND: { message: 'there is no such channel', retryable: false },
  IM_MEMBER_NOT_FOUND: { message: 'the channel has no such member', retryable: false },
  IM_NOT_SUPPORTED: { message: 'this cannot be done with the adapters in use', retryable: false },
  IM_DIRECTORY_UNAVAILABLE: { message: 'the channel directory did not answer', retryable: true },
  IM_PRESENCE_UNAVAILABLE: { message: 'presence did not answer', retryable: true },
  IM_WEBHOOK_FAILED: { message: 'the webhook did not answer', retryable: true },
  IM_REPLICATION_TIMEOUT: { message: 'the message was not committed in time', retryable: true },
  IM_PEER_UNREACHABLE: { message: 'another node did not confirm a push', retryable: true },
  IM_CLUSTER_UNAVAILABLE: { message: 'the servers that join the nodes did not answer', retryable: true },
  IM_LOG_UNFIT: { message: 'the log cannot be kept on these servers as they are set up', retryable: false },
  IM_LOG_FORMAT: { message: 'the log has something in it that this version does not know', retryable: false },
  IM_LOG_CORRUPT: { message: 'an entry of the log is damaged', retryable: false },
  IM_LOG_GAP: { message: 'what this node missed is no longer in the log', retryable: false },
  IM_LOG_DIVERGED: { message: 'the servers do not have the same log', retryable: false },
  IM_LOG_REPLACED: { message: 'the log is gone, or another one has its name', retryable: false },
  IM_ENTRY_TOO_LARGE: { message: 'a message is larger than the log takes', retryable: false },
  IM_CLUSTER_DENIED: { message: 'the servers that join the nodes refused us', retryable: false },
  IM_BAD_KEY: { message: 'a key is not a base64 X25519 public key', retryable: false },
  IM_LISTENER_FAILED: { message: 'a listener of the engine threw', retryable: false },
  IM_CLOSE_TIMEOUT: { message: 'something was still under way when the engine had to close', retryable: false },
} as const

export type IMErrorCode = keyof typeof ERRORS

/** Where it happened, for the log: never a payload and never a token. */
export interface IMErrorContext {
  readonly event?: string
  readonly step?: string
  readonly uid?: string
  readonly channelID?: string
  readonly channelType?: number
  readonly connectionID?: string
  readonly nodeID?: number
  readonly reasonCode?: number
}

const inspectCustom = Symbol.for('nodejs.util.inspect.custom')

/** The one error class of the engine. Tell failures apart by `code`, not by message. */
export class IMError extends Error {
  override readonly name = 'IMError'
  readonly code: IMErrorCode
  readonly retryable: boolean
  /** what the message says behind the text of the code */
  readonly detail: string | undefined
  readonly context: IMErrorContext
  /** what it comes of; said here for programs that are compiled for an older `lib` than ES2022 */
  declare readonly cause?: unknown

  constructor(code: IMErrorCode, options: { detail?: string; cause?: unknown; context?: IMErrorContext } = {}) {
    const base = ERRORS[code].message
    super(
      options.detail === undefined ? base : `${base}: ${options.detail}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    )
    this.code = code
    this.retryable = ERRORS[code].retryable
    this.detail = options.detail
    this.context = options.context ?? {}
  }

  /**
   * As Node prints it, but of `cause` only what it is and where it came from: its message is somebody else's, who was given
   * tokens and payloads and may quote them. It is there for whoever asks for `cause`. Source: docs/decisions/0015.
   */
  [inspectCustom](_depth: number, options: object, inspect: (value: unknown, options: object) => string): string {
    const { code, retryable, context } = this
    const cause = this.cause === undefined ? {} : { cause: `${describeCause(this.cause)}${framesOf(this.cause)}` }
    return `${this.stack ?? this.message} ${inspect({ code, retryable, context, ...cause }, options)}`
  }
}

/** What was thrown, in words that cannot hold a secret: the name and code of an error, the type of anything else. */
export function describeCause(cause: unknown): string {
  try {
    if (!(cause instanceof Error)) return kindOf(cause)
    const { name, code } = cause as { readonly name: unknown; readonly code?: unknown }
    return [name, code].filter((word) => typeof word === 'string' && /^\w{1,64}$/.test(word)).join(' ') || 'an error'
  } catch {
    return 'an error' // one that throws when it is looked at
  }
}

/** The calls behind an error, without the message that stands before them. */
function framesOf(cause: unknown): string {
  try {
    if (!(cause instanceof Error) || typeof cause.stack !== 'string') return ''
    const head = cause.message === '' ? cause.name : `${cause.name}: ${cause.message}`
    return cause.stack.startsWith(`${head}\n    at `) ? cause.stack.slice(head.length) : ''
  } catch {
    return ''
  }
}

/**
 * `value` when it already is an IMError, otherwise an IMError of `code` with `value` as its cause. One that does not say where
 * it happened, as adapters throw them, is told in `context`.
 */
export function asIMError(value: unknown, code: IMErrorCode, context: IMErrorContext): IMError {
  if (value instanceof IMError) {
    if (Object.keys(value.context).length > 0) return value
    const { detail, cause } = value
    return new IMError(value.code, { context, ...(detail === undefined ? {} : { detail }), ...(cause === undefined ? {} : { cause }) })
  }
  return new IMError(code, { cause: value, context })
}

/** Options whose value is nobody's business, also when it is of the wrong type: what came is told by its type alone. */
const SECRET_OPTION = /(?:payload|message|token|tokenVerifier|(?:private|client|server|aes|secret)Key|salt|secret|password)$/i

/** Throws the TypeError of a host's mistake: which option, what was expected, what came. */
export function badOption(option: string, expected: string, got: unknown): never {
  throw new TypeError(`imengine: ${option} must be ${expected}, got ${SECRET_OPTION.test(option) ? kindOf(got) : describe(got)}`)
}

/** A misspelt option would otherwise be one that silently does nothing, such as a secret. @throws TypeError naming it */
export function onlyKnown(name: string, options: unknown, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null) badOption(name, 'an object', options)
  for (const option of Object.keys(options)) {
    if (!known.includes(option)) throw new TypeError(`imengine: ${name}.${option} must be left out: there is no such option (known: ${known.join(', ')})`)
  }
}

/** `value` when it is an integer in the range. @throws TypeError otherwise */
export function integerBetween(option: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    badOption(option, `an integer from ${min} to ${max}`, value)
  }
  return value
}

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)
  if (typeof value === 'number' || typeof value === 'boolean' || value === null || value === undefined) return String(value)
  return typeof value === 'bigint' ? `${value}n` : kindOf(value)
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (Array.isArray(value)) return `an array of ${value.length}`
  return typeof value === 'object' ? `a ${value.constructor?.name ?? 'value'}` : `a ${typeof value}`
}
