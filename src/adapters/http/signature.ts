import { createHmac, timingSafeEqual } from 'node:crypto'

/**
 * A key of HMAC-SHA256: `whsec_` and base64, as Standard Webhooks writes them; any other text, by its UTF-8 bytes; or bytes.
 * Several while one replaces the other: everything is signed with each.
 */
export type WebhookSecret = string | Uint8Array | readonly (string | Uint8Array)[]

export interface VerifySignatureOptions {
  readonly secret: WebhookSecret
  /** of the request: Node's `request.headers`, or any object with names in any case */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  /** the raw body, byte for byte: JSON that was parsed and written again is another text */
  readonly body: Uint8Array | string
  /** how far the clocks may be apart, and how old a captured delivery may be; default 300 */
  readonly toleranceSec?: number
  /** default `Date.now()` */
  readonly nowMs?: number
}

/** @throws TypeError for what is no secret, without quoting it */
export function signingKeys(name: string, secret: WebhookSecret): readonly Buffer[] {
  const secrets = typeof secret === 'string' || secret instanceof Uint8Array ? [secret] : secret
  if (!Array.isArray(secrets) || secrets.length === 0) throw new TypeError(`imengine: ${name} must be text, bytes, or a list of them`)
  return (secrets as readonly unknown[]).map((one) => {
    const key = keyOf(one)
    if (key === undefined || key.length === 0) throw new TypeError(`imengine: ${name} must be text or bytes, not empty, and base64 behind whsec_`)
    return key
  })
}

function keyOf(secret: unknown): Buffer | undefined {
  if (secret instanceof Uint8Array) return Buffer.from(secret)
  if (typeof secret !== 'string') return undefined
  if (!secret.startsWith('whsec_')) return Buffer.from(secret)
  const base64 = secret.slice('whsec_'.length)
  return /^[A-Za-z0-9+/]+={0,2}$/.test(base64) ? Buffer.from(base64, 'base64') : undefined
}

export interface Signed {
  readonly id: string
  readonly timestampSec: number
  readonly body: Uint8Array | string
}

/** Source: Standard Webhooks 1.0, headers and symmetric signatures. */
export function signatureHeaders(keys: readonly Buffer[], signed: Signed): Record<string, string> {
  return {
    'webhook-id': signed.id,
    'webhook-timestamp': String(signed.timestampSec),
    ...(keys.length > 0 && { 'webhook-signature': keys.map((key) => `v1,${macOf(key, signed).toString('base64')}`).join(' ') }),
  }
}

function macOf(key: Buffer, { id, timestampSec, body }: Signed): Buffer {
  return createHmac('sha256', key).update(`${id}.${timestampSec}.`).update(body).digest()
}

/**
 * For the receiver: was this body signed with the secret, lately? One signature that fits one of the secrets is enough. Takes
 * as long for a wrong signature as for a right one. A delivery that comes twice has the same `webhook-id`.
 * @throws TypeError for what is no secret
 */
export function verifyWebhookSignature(options: VerifySignatureOptions): boolean {
  const { secret, body, toleranceSec = 300, nowMs = Date.now() } = options
  const keys = signingKeys('secret', secret)
  const headers = new Map(Object.entries(options.headers).map(([name, value]) => [name.toLowerCase(), value]))
  const [id, timestamp, signatures] = ['webhook-id', 'webhook-timestamp', 'webhook-signature'].map((name) => headers.get(name))
  if (typeof id !== 'string' || typeof timestamp !== 'string' || typeof signatures !== 'string') return false
  if (!/^\d{1,12}$/.test(timestamp)) return false
  const timestampSec = Number(timestamp)
  if (String(timestampSec) !== timestamp || !(Math.abs(nowMs / 1000 - timestampSec) <= toleranceSec)) return false
  const expected = keys.map((key) => macOf(key, { id, timestampSec, body }))
  let isValid = false
  for (const signature of signatures.split(' ')) {
    if (!signature.startsWith('v1,')) continue
    const presented = Buffer.from(signature.slice(3), 'base64')
    for (const mac of expected) isValid = (presented.length === mac.length && timingSafeEqual(presented, mac)) || isValid
  }
  return isValid
}
