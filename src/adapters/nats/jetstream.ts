/**
 * The few requests of JetStream's API that the log needs, as JSON over plain NATS: what a failure means must be known to the
 * code, because from it follows whether a publish is repeated.
 * Source: NATS documentation, "JetStream wire API reference", as nats-server 2.9 answers.
 */
import type { MsgHdrs, NatsConnection, RequestError } from '@nats-io/transport-node'

/** What the servers said, or that they said nothing. */
export class JetStreamFailure extends Error {
  override readonly name = 'JetStreamFailure'
  readonly kind: 'refused' | 'timeout' | 'no-responders' | 'denied' | 'closed' | 'too-large'
  /** `err_code` of a refusal, 0 otherwise */
  readonly code: number

  constructor(kind: JetStreamFailure['kind'], code: number, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.kind = kind
    this.code = code
  }
}

/** `err_code`s that mean something to the log. */
export const Refusal = {
  NoPeers: 10005,
  ConsumerNotFound: 10014,
  InsufficientResources: 10023,
  NoMessageFound: 10037,
  NotEnabledForAccount: 10039,
  StorageExceeded: 10047,
  MessageTooLarge: 10054,
  StreamNameInUse: 10058,
  StreamNotFound: 10059,
  StreamNotMatch: 10060,
  SubjectsOverlap: 10065,
  ReplicasNotSupported: 10074,
  NotEnabled: 10076,
  /** an entry of the same id is on its way to a majority */
  DuplicateInFlight: 10158,
} as const

export interface StreamConfig {
  readonly name: string
  readonly description?: string
  readonly subjects?: readonly string[]
  readonly retention: string
  readonly storage: string
  readonly discard: string
  readonly num_replicas: number
  readonly max_age: number
  readonly max_bytes: number
  readonly max_msgs?: number
  readonly max_msg_size?: number
  readonly duplicate_window?: number
  readonly deny_delete?: boolean
  readonly deny_purge?: boolean
  readonly no_ack?: boolean
  readonly sealed?: boolean
  readonly mirror?: object
  readonly sources?: readonly object[]
  readonly subject_transform?: object
}

export interface StreamInfo {
  readonly config: StreamConfig
  readonly created: string
  readonly state: { readonly first_seq: number; readonly last_seq: number; readonly messages: number }
  /** of servers that are several */
  readonly cluster?: { readonly leader?: string }
}

export const nanos = (ms: number): number => ms * 1_000_000

export class JetStream {
  readonly nats: NatsConnection
  readonly #headers: () => MsgHdrs

  constructor(nats: NatsConnection, headers: () => MsgHdrs) {
    this.nats = nats
    this.#headers = headers
  }

  async checkAccount(timeoutMs: number): Promise<void> {
    await this.#ask('INFO', undefined, timeoutMs)
  }

  createStream(config: StreamConfig, timeoutMs: number): Promise<StreamInfo> {
    return this.#ask<StreamInfo>(`STREAM.CREATE.${config.name}`, config, timeoutMs)
  }

  /** @returns what its leader says: a server that has lost the others may answer, too (2.14.9 does), and then knows of no leader */
  async streamInfo(stream: string, timeoutMs: number): Promise<StreamInfo> {
    const info = await this.#ask<StreamInfo>(`STREAM.INFO.${stream}`, undefined, timeoutMs)
    if (info.cluster !== undefined && info.cluster.leader === undefined) throw new JetStreamFailure('no-responders', 0, `${stream} has no leader`)
    return info
  }

  /**
   * One that is gone when nobody asks it for a minute, or when its server is.
   * @returns its name
   */
  async createConsumer(stream: string, startSeq: number, timeoutMs: number): Promise<string> {
    const config = {
      ack_policy: 'none',
      deliver_policy: 'by_start_sequence',
      opt_start_seq: startSeq,
      replay_policy: 'instant',
      inactive_threshold: nanos(60_000),
      mem_storage: true,
      num_replicas: 1,
      max_waiting: 8,
    }
    const { name } = await this.#ask<{ name: string }>(`CONSUMER.CREATE.${stream}`, { stream_name: stream, config }, timeoutMs)
    return name
  }

  /** One entry as the stream's leader has it, who needs nobody else for that. @returns undefined when it has none at this place */
  async entryAt(stream: string, seq: number, timeoutMs: number): Promise<Uint8Array | undefined> {
    try {
      const { message } = await this.#ask<{ message: { data?: string } }>(`STREAM.MSG.GET.${stream}`, { seq }, timeoutMs)
      return Buffer.from(message.data ?? '', 'base64')
    } catch (error) {
      if (error instanceof JetStreamFailure && error.code === Refusal.NoMessageFound) return undefined
      throw error
    }
  }

  /** Call back whenever a stream has a new leader. Who may not hear of it is not told. @returns ends it */
  watchLeaders(streams: readonly string[], elected: (stream: string) => void): () => void {
    const subscriptions = streams.map((stream) =>
      this.nats.subscribe(`$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${stream}`, {
        callback: (error) => {
          if (error === null || error === undefined) elected(stream)
        },
      }),
    )
    return () => {
      for (const subscription of subscriptions) subscription.unsubscribe()
    }
  }

  deleteConsumer(stream: string, consumer: string): void {
    if (!this.nats.isClosed()) this.nats.publish(`$JS.API.CONSUMER.DELETE.${stream}.${consumer}`)
  }

  pull(stream: string, consumer: string, inbox: string, request: object): void {
    if (!this.nats.isClosed()) this.nats.publish(`$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`, JSON.stringify(request), { reply: inbox })
  }

  /** @returns the entry's place in the stream, also when it was there already */
  async publish(subject: string, entry: Uint8Array, to: { stream: string; messageID: string; timeoutMs: number }): Promise<number> {
    const headers = this.#headers()
    headers.set('Nats-Msg-Id', to.messageID)
    headers.set('Nats-Expected-Stream', to.stream)
    const { seq } = await this.#request<{ seq: number }>(subject, entry, { timeout: to.timeoutMs, headers })
    // Older servers say that it is at place 0 when it is on its way to a majority.
    if (!(seq > 0)) throw new JetStreamFailure('refused', Refusal.DuplicateInFlight, 'it is on its way')
    return seq
  }

  #ask<T>(what: string, body: object | undefined, timeoutMs: number): Promise<T> {
    return this.#request<T>(`$JS.API.${what}`, body === undefined ? '' : JSON.stringify(body), { timeout: timeoutMs })
  }

  async #request<T>(subject: string, content: string | Uint8Array, options: { timeout: number; headers?: MsgHdrs }): Promise<T> {
    let answer: { error?: { err_code?: number; description?: string } }
    try {
      const message = await this.nats.request(subject, content, options)
      answer = message.json()
    } catch (error) {
      throw failureOf(error)
    }
    if (answer.error === undefined) return answer as T
    throw new JetStreamFailure('refused', answer.error.err_code ?? 0, answer.error.description ?? 'refused')
  }
}

function failureOf(error: unknown): JetStreamFailure {
  const { name, message, cause } = error as Error
  if ((error as Partial<RequestError>).isNoResponders?.() === true) {
    return new JetStreamFailure('no-responders', 0, 'nobody answers to JetStream', error)
  }
  if (name === 'PermissionViolationError' || (cause as Error | undefined)?.name === 'PermissionViolationError') {
    return new JetStreamFailure('denied', 0, 'no permission', error)
  }
  if (name === 'InvalidArgumentError' && /max_payload/.test(message)) return new JetStreamFailure('too-large', 0, 'max_payload', error)
  if (name === 'ClosedConnectionError' || name === 'DrainingConnectionError') return new JetStreamFailure('closed', 0, 'the connection is closed', error)
  return new JetStreamFailure('timeout', 0, 'no answer', error)
}
