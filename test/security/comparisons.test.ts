import type * as Crypto from 'node:crypto'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { memoryStorage, staticTokenVerifier } from 'imengine'
import { verifyWebhookSignature } from 'imengine/http'
import { SealModule, SessionCipher } from 'imengine/protocol'

/** The lengths of what has been compared in constant time. */
const compared = vi.hoisted(() => [] as [number, number][])

vi.mock('node:crypto', async (original) => {
  const crypto = await original<typeof Crypto>()
  return { ...crypto, timingSafeEqual: (one: Uint8Array, other: Uint8Array) => (compared.push([one.length, other.length]), crypto.timingSafeEqual(one, other)) }
})

afterEach(() => {
  compared.length = 0
  vi.restoreAllMocks()
})

const request = { uid: 'ann', token: '', deviceFlag: 0, deviceID: 'd', remoteAddress: undefined, signal: new AbortController().signal }

/** What is compared while `action` runs. */
function comparedBy(action: () => unknown): [number, number][] {
  compared.length = 0
  action()
  return [...compared]
}

describe('a secret is compared as a whole', () => {
  const guesses = ['', 'x', 'token-of-anx', 'xoken-of-ann', 'token-of-ann', 'x'.repeat(30_000)]

  test.each(guesses.map((token) => [token.slice(0, 20), token]))('a token: by a digest of 32 bytes, for known and unknown users alike (%s)', (_name, token) => {
    const verify = staticTokenVerifier({ ann: 'token-of-ann' })
    for (const uid of ['ann', 'nobody', '__proto__']) expect(comparedBy(() => verify({ ...request, uid, token })), uid).toEqual([[32, 32]])
  })

  test('a token of a store: in the same way, whether or not there is one', async () => {
    const { tokens } = memoryStorage()
    await tokens.putToken('ann', { deviceFlag: 0, deviceLevel: 0, digest: new Uint8Array(32) } as never)
    const verify = staticTokenVerifier(tokens)
    for (const uid of ['ann', 'nobody']) {
      compared.length = 0
      expect(await verify({ ...request, uid, token: 'guess' })).toEqual({ ok: false })
      expect(compared, uid).toEqual([[32, 32]])
    }
  })

  test('the signature of a webhook: by its 32 bytes, also behind one that fits', () => {
    const nowMs = 1_700_000_000_000
    const headers = { 'webhook-id': '1', 'webhook-timestamp': '1700000000', 'webhook-signature': `v1,${Buffer.alloc(32).toString('base64')} v1,${Buffer.alloc(32, 1).toString('base64')}` }
    expect(comparedBy(() => verifyWebhookSignature({ secret: ['s', 't'], headers, body: '', nowMs }))).toEqual(Array(4).fill([32, 32]))
  })

  test.each(['module', 'node'] as const)('a msgKey: what is read of it does not depend on where it is wrong (%s)', (kind) => {
    const key = { key: '0123456789abcdef', iv: 'fedcba9876543210' }
    const cipher = new SessionCipher(kind === 'module' ? { ...key, module: SealModule.load()! } : key)
    const { payload, msgKey } = cipher.seal('head', Buffer.from('x'))
    const wrongFirst = `${msgKey[0] === '0' ? '1' : '0'}${msgKey.slice(1)}`
    const wrongLast = `${msgKey.slice(0, -1)}${msgKey.endsWith('0') ? '1' : '0'}`
    const reads = (given: string): number => {
      const charCodeAt = vi.spyOn(String.prototype, 'charCodeAt')
      cipher.open('head', payload, given)
      const { length } = charCodeAt.mock.calls
      charCodeAt.mockRestore()
      return length
    }
    expect(reads(wrongFirst)).toBe(reads(wrongLast))
    if (kind === 'node') expect(reads(wrongFirst)).toBeGreaterThanOrEqual(64)
    expect(cipher.open('head', payload, wrongFirst)).toBeUndefined()
    expect(cipher.open('head', payload, wrongLast)).toBeUndefined()
    expect(cipher.open('head', payload, msgKey)).toEqual(Buffer.from('x'))
  })
})
