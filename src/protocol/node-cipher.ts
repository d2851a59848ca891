import { createCipheriv, createDecipheriv, hash, type Cipher, type Decipher } from 'node:crypto'
import { decodeBase64, encodeBase64 } from './base64.ts'
import { allocateNative, type NativeBuffer } from './native-buffer.ts'

const ALGORITHM = 'aes-128-cbc'
const BLOCK_BYTES = 16

/**
 * The payload encryption by node:crypto.
 *
 * Making an OpenSSL context costs several times the encryption of a chat message, so there is one per direction, made at
 * first use and kept (about 1.2 KiB each). Such a context goes on from the last ciphertext block where the protocol starts
 * every text at the IV. Because CBC mixes that block in by XOR, XORing the first plaintext block with "last ciphertext
 * block XOR IV" gives exactly the ciphertext that starts at the IV; decryption undoes the same on its result.
 */
export class NodeCipher {
  readonly #key: Uint8Array
  readonly #iv: Uint8Array
  #encryptor: Cipher | undefined = undefined
  #decryptor: Decipher | undefined = undefined
  /** Last ciphertext block of the context XOR the IV; zero while the context stands at the IV. */
  readonly #encryptShift = new Uint8Array(BLOCK_BYTES)
  readonly #decryptShift = new Uint8Array(BLOCK_BYTES)

  /** @param secret  16 bytes of key, 16 bytes of IV */
  constructor(secret: Uint8Array) {
    this.#key = secret.subarray(0, BLOCK_BYTES)
    this.#iv = secret.subarray(BLOCK_BYTES)
  }

  sealPayload(plaintext: Uint8Array): NativeBuffer {
    return encodeBase64(this.#encrypt(plaintext))
  }

  openPayload(wire: Uint8Array): Uint8Array | undefined {
    const ciphertext = decodeBase64(wire)
    if (ciphertext === undefined || ciphertext.length === 0 || ciphertext.length % BLOCK_BYTES !== 0) return undefined
    return this.#decrypt(ciphertext)
  }

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
    return padded.subarray(0, byteCount)
  }

  #setShift(shift: Uint8Array, ciphertext: Uint8Array): void {
    const lastBlock = ciphertext.length - BLOCK_BYTES
    for (let i = 0; i < BLOCK_BYTES; i++) shift[i] = ciphertext[lastBlock + i]! ^ this.#iv[i]!
  }
}
