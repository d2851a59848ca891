import { createHash } from 'node:crypto'
import type { Agent } from 'node:http'
import { LRUCache } from 'lru-cache'
import type { TokenVerifier, VerifyTokenRequest, VerifyTokenResult } from '../../contracts/token-verifier.ts'
import { integerBetween, onlyKnown } from '../../errors.ts'
import type { ReasonCode } from '../../model/reason-code.ts'
import { Asker } from './asker.ts'
import { checkedBreaker, type BreakerOptions } from './breaker.ts'
import { HTTPClient, systemHTTPClock, type HTTPClock } from './client.ts'
import { checkedHeaders, checkedURL } from './options.ts'
import { isObject } from './wire.ts'

export interface HTTPTokenVerifierOptions {
  /** http: or https: */
  readonly url: string | URL
  /** for the wait for a turn and the call; default 3000. The engine's `authTimeoutMs` limits all of a login */
  readonly timeoutMs?: number
  /** calls at the same time, default 64 */
  readonly maxConcurrent?: number
  /** logins that wait for their turn; beyond it they fail at once; default 10 000 */
  readonly maxQueued?: number
  /** sent along with every POST, such as what proves to the far end who asks */
  readonly headers?: Readonly<Record<string, string>>
  /** how long a yes holds without being asked again; as long a token that was revoked lets in. Default 0: always asked */
  readonly cacheMs?: number
  /** answers kept, default 10 000 */
  readonly maxCached?: number
  readonly breaker?: BreakerOptions
  /** default: one that keeps connections, at most `maxConcurrent` */
  readonly agent?: Agent
  /** default 65 536 */
  readonly maxAnswerBytes?: number
  readonly clock?: HTTPClock
}

/**
 * Asks by `POST url` with `{uid, token, deviceFlag, deviceID}` whether a client may come in; status 200 and
 * `{"code": 0, "deviceLevel": 0 | 1}` says yes, any other code no, with `reason` for CONNACK if that is 2 to 255. Whatever else
 * happens is a failure, which the client is told as one and not as a wrong token.
 * @throws TypeError naming the option
 */
export function httpTokenVerifier(options: HTTPTokenVerifierOptions): TokenVerifier {
  const name = 'httpTokenVerifier'
  onlyKnown(name, options, [
    'url', 'timeoutMs', 'maxConcurrent', 'maxQueued', 'headers', 'cacheMs', 'maxCached', 'breaker', 'agent', 'maxAnswerBytes', 'clock',
  ])
  const { clock = systemHTTPClock() } = options
  const code = 'IM_VERIFIER_FAILED'
  const maxConcurrent = integerBetween(`${name}.maxConcurrent`, options.maxConcurrent ?? 64, 1, 100_000)
  const client = new HTTPClient({
    url: checkedURL(`${name}.url`, options.url),
    headers: checkedHeaders(`${name}.headers`, options.headers),
    agent: options.agent,
    maxSockets: maxConcurrent,
    maxAnswerBytes: integerBetween(`${name}.maxAnswerBytes`, options.maxAnswerBytes ?? 65_536, 1, 16_777_216),
    clock,
    code,
  })
  const asker = new Asker({
    client,
    clock,
    code,
    maxConcurrent,
    maxQueued: integerBetween(`${name}.maxQueued`, options.maxQueued ?? 10_000, 0, 10_000_000),
    timeoutMs: integerBetween(`${name}.timeoutMs`, options.timeoutMs ?? 3_000, 1, 600_000),
    breaker: checkedBreaker(`${name}.breaker`, options.breaker),
  })
  const ttl = integerBetween(`${name}.cacheMs`, options.cacheMs ?? 0, 0, 86_400_000)
  const max = integerBetween(`${name}.maxCached`, options.maxCached ?? 10_000, 1, 10_000_000)
  const perf = { now: (): number => clock.monotonicMs() + 1 } // the cache takes an entry of the moment 0 for one that lasts
  const known = ttl === 0 ? undefined : new LRUCache<string, VerifyTokenResult>({ max, ttl, ttlResolution: 0, perf })

  return async (request) => {
    const key = known && digestOf(request)
    const before = key === undefined ? undefined : known?.get(key)
    if (before !== undefined) return before
    const { uid, token, deviceFlag, deviceID, signal } = request
    const result = await asker.ask({ body: Buffer.from(JSON.stringify({ uid, token, deviceFlag, deviceID })), signal }, readVerdict)
    if (key !== undefined && result.ok) known?.set(key, result)
    return result
  }
}

/** What was asked, as something that nobody can log in with. */
function digestOf({ uid, token, deviceFlag, deviceID }: VerifyTokenRequest): string {
  return createHash('sha256').update(JSON.stringify([uid, deviceFlag, deviceID, token])).digest('base64')
}

function readVerdict(json: unknown): VerifyTokenResult | undefined {
  if (!isObject(json) || typeof json.code !== 'number' || !Number.isInteger(json.code)) return undefined
  if (json.code !== 0) {
    const { reason } = json
    const isReason = typeof reason === 'number' && Number.isInteger(reason) && reason >= 2 && reason <= 255
    return isReason ? { ok: false, reason: reason as ReasonCode } : { ok: false }
  }
  const deviceLevel = json.deviceLevel ?? undefined
  if (deviceLevel === undefined) return { ok: true }
  return deviceLevel === 0 || deviceLevel === 1 ? { ok: true, deviceLevel } : undefined
}
