import type * as Crypto from 'node:crypto'
import { expect, test, vi } from 'vitest'
import { acceptKeyAgreement, ClientKeyAgreement } from '../../src/protocol/key-agreement.ts'

vi.mock('node:crypto', async (importOriginal) => {
  const actual = await importOriginal<typeof Crypto>()
  return {
    ...actual,
    createPrivateKey(input: { format?: string }) {
      if (input.format === 'jwk') throw new TypeError('x is not the public key of d')
      return actual.createPrivateKey(input as Parameters<typeof actual.createPrivateKey>[0])
    },
  }
})

test('where Node takes no JWK without its public key, the same keys come out of DER', () => {
  const seed = Buffer.from('3031323334353637383961626364656630313233343536373839616263646566', 'hex')
  const client = new ClientKeyAgreement(() => seed)
  expect(client.clientKey).toBe('hlF7wMOf6Ha3ZGy1407gPa9xzLrWdFDBapcK2MvAPn4=')
  const server = acceptKeyAgreement(client.clientKey, (count) => seed.subarray(0, count))
  const text = Buffer.from('what both ends can read')
  expect(client.complete(server.serverKey, server.salt).openPayload(server.cipher.sealPayload(text))).toEqual(text)
})
