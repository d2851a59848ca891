import { createPublicKey, diffieHellman, hash, randomBytes } from 'node:crypto'
import { badOption, IMError } from '../errors.ts'
import { decodeBase64 } from './base64.ts'
import { KEY_BYTES, keyPairOf, type KeyPair } from './key-pair.ts'
import type { SealModule } from './seal-module.ts'
import { SessionCipher } from './session-cipher.ts'

const SALT_CHARACTERS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const SALT_LENGTH = 16

/** `count` unpredictable bytes. */
export type RandomBytes = (count: number) => Uint8Array

/** The server's side of a key agreement: what goes into CONNACK, and what the connection keeps. */
export interface KeyAgreement {
  readonly cipher: SessionCipher
  /** base64 of the server's X25519 public key, made for this connection alone */
  readonly serverKey: string
  /** the AES IV: 16 characters of [0-9a-zA-Z] */
  readonly salt: string
}

/**
 * Agrees on a payload key with a client: a fresh key pair and salt, and the cipher both ends now share.
 * @param clientKey    CONNECT.clientKey, as the client sent it
 * @param randomBytes  the only source of chance: equal bytes give an equal agreement
 * @param module       what the cipher works with; left out, node:crypto
 * @throws IM_BAD_KEY  `clientKey` is empty, not strict base64, not of 32 bytes, or a point of low order, which would make
 *                     the key one that anybody knows
 * Source: wkproto 10.
 */
export function acceptKeyAgreement(clientKey: string, randomBytes: RandomBytes, module?: SealModule): KeyAgreement {
  const pair = newKeyPair(randomBytes)
  const key = payloadKey(pair, clientKey)
  const salt = randomSalt(randomBytes)
  return { cipher: new SessionCipher({ key, iv: salt, module }), serverKey: pair.publicKeyText, salt }
}

/** The client's side of a key agreement: one object per CONNECT. */
export class ClientKeyAgreement {
  /** For CONNECT.clientKey: base64 of this side's X25519 public key. */
  readonly clientKey: string
  readonly #pair: KeyPair

  /** @param source  node:crypto by default */
  constructor(source: RandomBytes = randomBytes) {
    this.#pair = newKeyPair(source)
    this.clientKey = this.#pair.publicKeyText
  }

  /**
   * The cipher of the connection, from the two fields of a successful CONNACK; `module` as for `acceptKeyAgreement`.
   * @throws IM_BAD_KEY  `serverKey` is not base64 of a usable X25519 public key, or `salt` not 16 ASCII characters
   */
  complete(serverKey: string, salt: string, module?: SealModule): SessionCipher {
    return new SessionCipher({ key: payloadKey(this.#pair, serverKey), iv: salt, module })
  }
}

/** @param source  gives 32 bytes */
function newKeyPair(source: RandomBytes): KeyPair {
  const seed = source(KEY_BYTES)
  if (seed.length !== KEY_BYTES) badOption(`randomBytes(${KEY_BYTES})`, `${KEY_BYTES} bytes`, seed.length)
  return keyPairOf(Buffer.from(seed))
}

/** The AES key: the first half of the hex MD5 of the shared secret's base64 text. */
function payloadKey({ privateKey }: KeyPair, peerKeyText: string): string {
  const peerKey = decodeBase64(Buffer.from(peerKeyText))
  if (peerKey?.length !== KEY_BYTES) throw new IMError('IM_BAD_KEY', { detail: 'it is not base64 of 32 bytes' })
  const x = peerKey.toString('base64url')
  const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' })
  let secret: Buffer
  try {
    secret = diffieHellman({ privateKey, publicKey })
  } catch (cause) {
    // OpenSSL refuses to derive the all-zero secret that a point of low order leads to.
    throw new IMError('IM_BAD_KEY', { detail: 'it is a point of low order', cause })
  }
  return hash('md5', secret.toString('base64')).slice(0, 16)
}

function randomSalt(source: RandomBytes): string {
  // 248 is the largest multiple of 62 a byte can reach: values from there on would make some characters likelier.
  const bound = 256 - (256 % SALT_CHARACTERS.length)
  let salt = ''
  for (let round = 0; round < 100; round++) {
    for (const byte of source(SALT_LENGTH)) {
      if (byte < bound) salt += SALT_CHARACTERS.charAt(byte % SALT_CHARACTERS.length)
      if (salt.length === SALT_LENGTH) return salt
    }
  }
  return badOption('randomBytes', 'a source of random bytes', 'one that gives only bytes above 247')
}
