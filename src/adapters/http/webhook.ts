import { randomBytes } from 'node:crypto'
import type { Agent } from 'node:http'
import { v7 as uuidV7 } from 'uuid'
import type { Random } from '../../contracts/random.ts'
import type { BeforeSendAnswer, BeforeSendRequest, Webhook, WebhookEvent } from '../../contracts/webhook.ts'
import { asIMError, badOption, IMError, integerBetween, onlyKnown } from '../../errors.ts'
import { Asker } from './asker.ts'
import { checkedBreaker, type BreakerOptions } from './breaker.ts'
import { HTTPClient, systemHTTPClock, type HTTPClock } from './client.ts'
import { checkedHeaders, checkedURL } from './options.ts'
import { signatureHeaders, signingKeys, type WebhookSecret } from './signature.ts'
import { notificationBody, questionBody, readAnswer, type StatusFormat } from './wire.ts'

export interface BeforeSendOptions {
  /** true (default): who cannot be asked has not agreed, and the sender gets 15. false: the message goes on unasked */
  readonly required?: boolean
  /** for the wait for a turn and the call; default 2000. Must stay below the engine's `webhookTimeoutMs`, which ends both kinds */
  readonly timeoutMs?: number
  /** calls at the same time, default 64 */
  readonly maxConcurrent?: number
  /** questions that wait for their turn; beyond it they fail at once; default 10 000 */
  readonly maxQueued?: number
  readonly breaker?: BreakerOptions
}

export interface HTTPWebhookOptions {
  /** http: or https:, with name and password for basic authentication if need be; `event` is added to its query */
  readonly url: string | URL
  /** what signs every delivery; without it nothing is signed */
  readonly secret?: WebhookSecret
  /** which events are told; default all, none switches telling off */
  readonly events?: readonly WebhookEvent['event'][]
  /** ask before every SEND (`message.send`); default false */
  readonly beforeSend?: boolean | BeforeSendOptions
  /** for one POST; default 10 000. The engine's `webhookTimeoutMs` limits a whole call */
  readonly notifyTimeoutMs?: number
  /** how `user.onlinestatus` is written: 'legacy' (default), `uid-deviceFlag-online-connection-deviceCount-count`, or objects */
  readonly statusFormat?: StatusFormat
  /** sent along with every POST */
  readonly headers?: Readonly<Record<string, string>>
  /** default: one that keeps connections, at most 100 */
  readonly agent?: Agent
  /** default 65 536; a `newPayload` is longer in base64 by a third */
  readonly maxAnswerBytes?: number
  /** hears of questions that could not be asked while `required` is false: of the first one of a streak */
  readonly onError?: (error: IMError) => void
  readonly clock?: HTTPClock
  readonly random?: Random
}

const EVENTS: readonly WebhookEvent['event'][] = ['msg.notify', 'msg.offline', 'user.onlinestatus']

/** One POST of a call of `notify`. */
interface Delivery {
  readonly id: string
  readonly events: readonly WebhookEvent[]
  isDone: boolean
}

/**
 * A webhook that is called by HTTP: `POST url?event=NAME`. `msg.notify`, `msg.offline` and `user.onlinestatus` are told in the
 * JSON of the reference server's second version; status 200 to 299 takes them. `message.send` asks before a SEND; status 200 and
 * JSON answer it. Deliveries carry the headers of Standard Webhooks; one that is repeated has the same `webhook-id`.
 * @throws TypeError naming the option
 */
export function httpWebhook(options: HTTPWebhookOptions): Webhook {
  onlyKnown('httpWebhook', options, [
    'url', 'secret', 'events', 'beforeSend', 'notifyTimeoutMs', 'statusFormat', 'headers', 'agent', 'maxAnswerBytes', 'onError', 'clock', 'random',
  ])
  const { events = EVENTS, statusFormat = 'legacy', clock = systemHTTPClock() } = options
  const random: Random = options.random ?? { bytes: (count) => randomBytes(count) }
  if (!Array.isArray(events)) badOption('httpWebhook.events', `an array of ${EVENTS.join(', ')}`, events)
  events.forEach((event: unknown, index) => {
    if (!EVENTS.includes(event as WebhookEvent['event'])) badOption(`httpWebhook.events[${index}]`, `one of ${EVENTS.join(', ')}`, event)
  })
  if (!['legacy', 'object'].includes(statusFormat)) badOption('httpWebhook.statusFormat', "'legacy' or 'object'", statusFormat)
  if (options.onError !== undefined && typeof options.onError !== 'function') badOption('httpWebhook.onError', 'a function', options.onError)
  const client = new HTTPClient({
    url: checkedURL('httpWebhook.url', options.url),
    headers: checkedHeaders('httpWebhook.headers', options.headers),
    agent: options.agent,
    maxSockets: 100,
    maxAnswerBytes: integerBetween('httpWebhook.maxAnswerBytes', options.maxAnswerBytes ?? 65_536, 1, 16_777_216),
    clock,
    code: 'IM_WEBHOOK_FAILED',
  })
  // As from an environment where it is not set: what was to be signed would not be.
  if ('secret' in options && options.secret === undefined) badOption('httpWebhook.secret', 'a secret, or left out where nothing is to be signed', undefined)
  const keys = options.secret === undefined ? [] : signingKeys('httpWebhook.secret', options.secret)
  const newID = (): string => uuidV7({ msecs: Math.floor(clock.nowMs()), random: random.bytes(16) })
  const headersOf = (id: string, body: Buffer): Record<string, string> =>
    signatureHeaders(keys, { id, timestampSec: Math.floor(clock.nowMs() / 1000), body })
  const notifyTimeoutMs = integerBetween('httpWebhook.notifyTimeoutMs', options.notifyTimeoutMs ?? 10_000, 1, 600_000)

  /**
   * What has become of the POSTs of a call that failed. It is told again with the same array: what was taken is not posted
   * again, so a call of many POSTs comes to its end although each try has time for a few only.
   */
  const begun = new WeakMap<readonly WebhookEvent[], Delivery[]>()

  async function notify(given: readonly WebhookEvent[], signal: AbortSignal): Promise<void> {
    let deliveries = begun.get(given)
    if (deliveries === undefined) begun.set(given, (deliveries = inPosts(given, newID)))
    for (const delivery of deliveries) {
      if (delivery.isDone) continue
      const body = notificationBody(delivery.events, statusFormat)
      const headers = headersOf(delivery.id, body)
      const { status } = await client.post({ event: delivery.events[0]!.event, body, headers, signal, timeoutMs: notifyTimeoutMs })
      if (status < 200 || status > 299) throw new IMError('IM_WEBHOOK_FAILED', { detail: `status ${status}` })
      delivery.isDone = true
    }
    begun.delete(given)
  }

  const beforeSend = beforeSendBy(options, client, clock, (body) => headersOf(newID(), body))
  return { events, ...(events.length > 0 && { notify }), ...(beforeSend !== undefined && { beforeSend }) }
}

/** Neighbours of one kind go together; a message with its offline receivers goes alone. */
function inPosts(events: readonly WebhookEvent[], newID: () => string): Delivery[] {
  const groups: WebhookEvent[][] = []
  for (const event of events) {
    const last = groups.at(-1)
    if (last !== undefined && last[0]!.event === event.event && event.event !== 'msg.offline') last.push(event)
    else groups.push([event])
  }
  return groups.map((group) => ({ id: newID(), events: group, isDone: false }))
}

function beforeSendBy(
  { beforeSend: wanted = false, onError }: HTTPWebhookOptions,
  client: HTTPClient,
  clock: HTTPClock,
  headersOf: (body: Buffer) => Record<string, string>,
): Webhook['beforeSend'] {
  if (wanted === false) return undefined
  const given: BeforeSendOptions = wanted === true ? {} : wanted
  const name = 'httpWebhook.beforeSend'
  onlyKnown(name, given, ['required', 'timeoutMs', 'maxConcurrent', 'maxQueued', 'breaker'])
  const { required = true } = given
  if (typeof required !== 'boolean') badOption(`${name}.required`, 'true or false', required)
  const asker = new Asker({
    client,
    clock,
    code: 'IM_WEBHOOK_FAILED',
    timeoutMs: integerBetween(`${name}.timeoutMs`, given.timeoutMs ?? 2_000, 1, 600_000),
    maxConcurrent: integerBetween(`${name}.maxConcurrent`, given.maxConcurrent ?? 64, 1, 100_000),
    maxQueued: integerBetween(`${name}.maxQueued`, given.maxQueued ?? 10_000, 0, 10_000_000),
    breaker: checkedBreaker(`${name}.breaker`, given.breaker),
  })
  let isFailing = false

  return async (request: BeforeSendRequest, signal: AbortSignal): Promise<BeforeSendAnswer> => {
    const body = questionBody(request)
    try {
      const answer = await asker.ask({ event: 'message.send', body, headers: headersOf(body), signal }, readAnswer)
      isFailing = false
      return answer
    } catch (reason) {
      if (required) throw reason
      if (!isFailing) onError?.(asIMError(reason, 'IM_WEBHOOK_FAILED', { event: 'EventOnSend', step: 'callWebhook' }))
      isFailing = true
      return { code: 0 }
    }
  }
}
