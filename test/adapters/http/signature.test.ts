import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { verifyWebhookSignature } from 'imengine/http'
import { signatureHeaders, signingKeys } from '../../../src/adapters/http/signature.ts'

const NOW_SEC = 1_700_000_000
const SIGNED = { id: 'msg_p5jXN8AQM9LWM0D4loKWxJek', timestampSec: 1_614_265_330, body: '{"test": 2432232314}' }
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

function signed(secret: string, body = 'body') {
  return { headers: signatureHeaders(signingKeys('secret', secret), { id: 'id', timestampSec: NOW_SEC, body }), body, nowMs: NOW_SEC * 1000 }
}

describe('verifyWebhookSignature', () => {
  it('agrees with the published example of Standard Webhooks', () => {
    const headers = { 'webhook-id': SIGNED.id, 'webhook-timestamp': String(SIGNED.timestampSec), 'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=' }
    expect(verifyWebhookSignature({ secret: SECRET, headers, body: SIGNED.body, nowMs: SIGNED.timestampSec * 1000 })).toBe(true)
  })

  it('takes headers in any case, bodies as bytes, and one right signature among wrong and unknown ones', () => {
    const { headers, body, nowMs } = signed('s')
    const shouting = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toUpperCase(), value]))
    expect(verifyWebhookSignature({ secret: 's', headers: shouting, body: Buffer.from(body), nowMs })).toBe(true)
    const several = { ...headers, 'webhook-signature': `v1a,AAAA v1, v1,!!! ${headers['webhook-signature']}` }
    expect(verifyWebhookSignature({ secret: ['old', 's'], headers: several, body, nowMs })).toBe(true)
  })

  it.each<[what: string, change: (headers: Record<string, string>) => Record<string, unknown>]>([
    ['no id', ({ ['webhook-id']: _id, ...headers }) => headers],
    ['another id', (headers) => ({ ...headers, 'webhook-id': 'id2' })],
    ['no timestamp', ({ ['webhook-timestamp']: _timestamp, ...headers }) => headers],
    ['another timestamp', (headers) => ({ ...headers, 'webhook-timestamp': String(NOW_SEC + 1) })],
    ['a timestamp that is written otherwise', (headers) => ({ ...headers, 'webhook-timestamp': `0${NOW_SEC}` })],
    ['no signature', ({ ['webhook-signature']: _signature, ...headers }) => headers],
    ['a header that came twice', (headers) => ({ ...headers, 'webhook-id': ['id', 'id'] })],
    ['a signature without its version', (headers) => ({ ...headers, 'webhook-signature': headers['webhook-signature']!.slice(3) })],
    ['a signature that is cut off', (headers) => ({ ...headers, 'webhook-signature': headers['webhook-signature']!.slice(0, -4) })],
  ])('says no to %s', (_what, change) => {
    const { headers, body, nowMs } = signed('s')
    expect(verifyWebhookSignature({ secret: 's', headers: change(headers) as Record<string, string>, body, nowMs })).toBe(false)
  })

  it('says no beyond the tolerance, on either side', () => {
    const { headers, body, nowMs } = signed('s')
    const at = (deltaSec: number): boolean => verifyWebhookSignature({ secret: 's', headers, body, nowMs: nowMs + deltaSec * 1000, toleranceSec: 60 })
    expect([at(-61), at(-60), at(60), at(61)]).toEqual([false, true, true, false])
  })

  it('says yes to what was signed with the secret, and no to any other secret or body', () => {
    const texts = fc.string({ minLength: 1, maxLength: 40, unit: 'grapheme' }).filter((text) => !text.startsWith('whsec_'))
    fc.assert(
      fc.property(texts, texts, fc.string(), fc.string(), (secret, other, body, otherBody) => {
        const { headers, nowMs } = signed(secret, body)
        const verify = (by: string, what: string): boolean => verifyWebhookSignature({ secret: by, headers, body: what, nowMs })
        expect(verify(secret, body)).toBe(true)
        if (!Buffer.from(other).equals(Buffer.from(secret))) expect(verify(other, body)).toBe(false)
        if (!Buffer.from(otherBody).equals(Buffer.from(body))) expect(verify(secret, otherBody)).toBe(false)
      }),
      { seed: 20_260_101, numRuns: 200 },
    )
  })
})
