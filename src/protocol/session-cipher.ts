import { createCipheriv, createDecipheriv, hash, type Cipher, type Decipher } from 'node:crypto'
import { IMError } from '../errors.ts'
import { decodeBase64, encodeBase64 } from './base64.ts'
import { allocateNative, type NativeBuffer } from './native-buffer.ts'

const ALGORITHM = 'aes-128-cbc'
const BLOCK_BYTES = 16

/** The payload key of one connection, as the codec needs it. `SessionCipher` is one. */
export interface PayloadCipher {
  sealPayload(plaintext: Uint8Array): Uint8Array
  openPayload(wire: Uint8Array): Uint8Array | undefined
  sign(signBytes: Uint8Array): string
}

/**
 * AES-128-CBC with PKCS#7 padding, base64 and MD5 under the one key and the one IV a connection has agreed on. Both ends
 * and both directions use the same; the text of equal plaintexts is equal. Source: wkproto 10.
 *
 * Making an OpenSSL context costs several times the encryption of a chat message, so there is one per direction, made at
 * first use and kept (about 1.2 KiB each). Such a context goes on from the last ciphertext block where the protocol starts
 * every text at the IV. Because CBC mixes that block in by XOR, XORing the first plaintext block with "last ciphertext
 * block XOR IV" gives exactly the ciphertext that starts at the IV; decryption undoes the same on its result.
 */
export class SessionCipher implements PayloadCipher {
  readonly #key: Buffer
  readonly #iv: Buffer
  #encryptor: Cipher | undefined = undefined
  #decryptor: Decipher | undefined = undefined
  /** Last ciphertext block of the context XOR the IV; zero while the context stands at the IV. */
  readonly #encryptShift = new Uint8Array(BLOCK_BYTES)
  readonly #decryptShift = new Uint8Array(BLOCK_BYTES)

  /**
   * @param parameters  `key` and `iv`, 16 ASCII characters each
   * @throws IM_BAD_KEY  either is not
   */
  constructor(parameters: { readonly key: string; readonly iv: string }) {
    this.#key = sixteenBytes(parameters.key, 'the payload key')
    this.#iv = sixteenBytes(parameters.iv, 'the salt')
  }

  /** Plaintext to the base64 text that travels, in memory of its own. */
  sealPayload(plaintext: Uint8Array): Uint8Array {
    return encodeBase64(this.#encrypt(plaintext))
  }

  /**
   * The base64 text back to plaintext, in memory of its own; undefined when it is not strict base64, not whole blocks or
   * not padded: nothing this key has made. Never throws.
   */
  openPayload(wire: Uint8Array): Uint8Array | undefined {
    const ciphertext = decodeBase64(wire)
    if (ciphertext === undefined || ciphertext.length === 0 || ciphertext.length % BLOCK_BYTES !== 0) return undefined
    return this.#decrypt(ciphertext)
  }

  /** The msgKey for a sign string: MD5 of its encrypted base64 text, 32 lower-case hex characters. */
  sign(signBytes: Uint8Array): string {
    const ciphertext = this.#encrypt(signBytes)
    return hash('md5', ciphertext.base64Slice(0, ciphertext.length))
  }

  #encrypt(plaintext: Uint8Array): NativeBuffer {
    const byteCount = plaintext.length
    const paddingBytes = BLOCK_BYTES - (byteCount % BLOCK_BYTES)
    const padded = allocateNative(byteCount + paddingBytes)
    padded.set(plaintext)
    for (let i = byteCount; i < padded.length; i++) padded[i] = paddingBytes
    const shift = this.#encryptShift
    for (let i = 0; i < BLOCK_BYTES; i++) padded[i]! ^= shift[i]!
    this.#encryptor ??= createCipheriv(ALGORITHM, this.#key, this.#iv).setAutoPadding(false)
    const ciphertext = this.#encryptor.update(padded) as NativeBuffer
    this.#setShift(shift, ciphertext)
    return ciphertext
  }

  #decrypt(ciphertext: Uint8Array): Uint8Array | undefined {
    this.#decryptor ??= createDecipheriv(ALGORITHM, this.#key, this.#iv).setAutoPadding(false)
    const padded = this.#decryptor.update(ciphertext)
    const shift = this.#decryptShift
    for (let i = 0; i < BLOCK_BYTES; i++) padded[i]! ^= shift[i]!
    this.#setShift(shift, ciphertext)
    const paddingBytes = padded[padded.length - 1]!
    if (paddingBytes === 0 || paddingBytes > BLOCK_BYTES) return undefined
    const byteCount = padded.length - paddingBytes
    for (let i = byteCount; i < padded.length; i++) if (padded[i] !== paddingBytes) return undefined
    return new Uint8Array(padded.buffer, padded.byteOffset, byteCount)
  }

  #setShift(shift: Uint8Array, ciphertext: Uint8Array): void {
    const lastBlock = ciphertext.length - BLOCK_BYTES
    for (let i = 0; i < BLOCK_BYTES; i++) shift[i] = ciphertext[lastBlock + i]! ^ this.#iv[i]!
  }
}

function sixteenBytes(text: string, what: string): Buffer {
  const bytes = Buffer.from(text)
  if (text.length !== BLOCK_BYTES || bytes.length !== BLOCK_BYTES) {
    throw new IMError('IM_BAD_KEY', { detail: `${what} is not 16 ASCII characters` })
  }
  return bytes
}
