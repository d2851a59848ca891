import { createPrivateKey, type KeyObject } from 'node:crypto'

export const KEY_BYTES = 32

/** What comes before the 32 raw bytes of an X25519 private key in DER. */
const PRIVATE_KEY_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex')

/** One end's X25519 keys. */
export interface KeyPair {
  readonly privateKey: KeyObject
  /** base64 */
  readonly publicKeyText: string
}

/** The key pair with these 32 secret bytes. */
export function keyPairOf(seed: Buffer): KeyPair {
  return withPublicText(importPrivateKey(seed))
}

function withPublicText(privateKey: KeyObject): KeyPair {
  const x = privateKey.export({ format: 'jwk' }).x!
  return { privateKey, publicKeyText: Buffer.from(x, 'base64url').toString('base64') }
}

/**
 * A private key from its 32 bytes. Node takes them straight from a JWK and ignores its `x`, the public key, which is not
 * known yet; should it ever compare the two, DER asks for no `x`. DER alone would do, but goes through OpenSSL's decoder:
 * 370 against 38 microseconds, and after a network fault every client connects at once.
 */
function importPrivateKey(seed: Buffer): KeyObject {
  const d = seed.toString('base64url')
  try {
    return createPrivateKey({ key: { kty: 'OKP', crv: 'X25519', d, x: d }, format: 'jwk' })
  } catch {
    return createPrivateKey({ key: Buffer.concat([PRIVATE_KEY_PREFIX, seed]), format: 'der', type: 'pkcs8' })
  }
}
