import { allocateNative, asNativeBuffer, type NativeBuffer } from './native-buffer.ts'
import { SEAL_MODULE_BASE64 } from './seal-module-bytes.ts'

const MSG_KEY_LENGTH = 32
const SECRET_WORDS = 8
/** of UTF-8, for each unit of UTF-16 */
const MAX_BYTES_PER_UNIT = 3

/**
 * From about here on node:crypto, which works with the processor's own AES instructions, is faster: at 1000 bytes the two are
 * about equal without the calls around node:crypto, at 4000 it is ahead. What the module has room for is more.
 */
const MAX_PLAIN_BYTES = 1_536
const MAX_TEXT_BYTES = 2_072

/** As much of the host's `WebAssembly` as is needed; Node's types leave it out. */
export interface WebAssemblyHost {
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object) => { readonly exports: object }
}

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer }
  readonly SECRET: { readonly value: number }
  readonly MSG_KEY: { readonly value: number }
  readonly PLAIN: { readonly value: number }
  readonly SIGNED: { readonly value: number }
  readonly MAX_SIGNED_BYTES: { readonly value: number }
  sealPayload(plainBytes: number): number
  openPayload(textBytes: number): number
  sign(signedBytes: number): void
  seal(headBytes: number, plainBytes: number): number
  open(headBytes: number, textBytes: number): number
}

/** A payload as it travels, and its msgKey. */
export interface Sealed {
  readonly payload: Uint8Array
  readonly msgKey: string
}

/** Where a sealed payload is written to: `msgKeyAt` has room for 32 characters, `payloadAt` for `sealedByteCount`. */
export interface SealTarget {
  readonly bytes: Uint8Array
  readonly msgKeyAt: number
  readonly payloadAt: number
}

/**
 * The payload encryption compiled to WebAssembly, from `wasm/seal.ts`: one instance with one page of memory, for any number of
 * ciphers, each of which hands in its key with every call. A method that finds its input too large for the page, or for it to be
 * worth the while, has done nothing: it gives undefined, or `'too-large'` where undefined is an answer. Of a call nothing secret stays in the page: the module clears
 * keys and round keys, plaintext that was sealed is overwritten by ciphertext, and what was opened is cleared as it is
 * copied out.
 */
export class SealModule {
  readonly #exports: Exports
  readonly #bytes: Uint8Array
  readonly #text: NativeBuffer
  readonly #secret: Int32Array
  // Read once: a field costs less than the getter of a WebAssembly.Global.
  readonly #msgKeyAt: number
  readonly #plainAt: number
  readonly #signedAt: number
  readonly #maxSignedBytes: number

  private constructor(exports: Exports) {
    const { buffer } = exports.memory // has a maximum equal to its size: it never grows, so that no view is ever detached
    this.#exports = exports
    this.#bytes = new Uint8Array(buffer)
    this.#text = asNativeBuffer(this.#bytes)
    this.#secret = new Int32Array(buffer, exports.SECRET.value, SECRET_WORDS)
    this.#msgKeyAt = exports.MSG_KEY.value
    this.#plainAt = exports.PLAIN.value
    this.#signedAt = exports.SIGNED.value
    this.#maxSignedBytes = exports.MAX_SIGNED_BYTES.value
  }

  /**
   * Compiles an instance of its own, which takes a few milliseconds; keep it. Undefined where WebAssembly is missing, lacks SIMD
   * or is forbidden to the process.
   */
  static load(scope: { readonly WebAssembly?: WebAssemblyHost } = globalThis as { WebAssembly?: WebAssemblyHost }): SealModule | undefined {
    const host = scope.WebAssembly
    if (host === undefined) return undefined
    try {
      const module = new host.Module(Buffer.from(SEAL_MODULE_BASE64, 'base64'))
      return new SealModule(new host.Instance(module).exports as Exports)
    } catch {
      return undefined // node:crypto does the same, only slower
    }
  }

  seal(secret: Int32Array, head: string, plaintext: Uint8Array): Sealed | undefined {
    const payload = this.#seal(secret, head, plaintext)
    return payload && { payload: copyOf(payload), msgKey: this.#msgKey() }
  }

  sealInto(secret: Int32Array, head: string, plaintext: Uint8Array, target: SealTarget): true | undefined {
    const payload = this.#seal(secret, head, plaintext)
    if (payload === undefined) return undefined
    const { bytes, msgKeyAt } = target
    bytes.set(payload, target.payloadAt)
    const from = this.#msgKeyAt
    for (let i = 0; i < MSG_KEY_LENGTH; i++) bytes[msgKeyAt + i] = this.#bytes[from + i]!
    return true
  }

  /** The plaintext in memory of its own; undefined when the msgKey is another, or the text nothing that this key has made. */
  open(secret: Int32Array, head: string, wire: Uint8Array, msgKey: string): Uint8Array | undefined | 'too-large' {
    const textBytes = wire.length
    if (textBytes > MAX_TEXT_BYTES) return 'too-large'
    const headBytes = this.#writeHead(head, textBytes)
    if (headBytes < 0) return 'too-large'
    // All of it as one byte each; what is no ASCII takes more, and those bytes are in no msgKey.
    if (msgKey.length !== MSG_KEY_LENGTH || this.#text.utf8Write(msgKey, this.#msgKeyAt, MSG_KEY_LENGTH) !== MSG_KEY_LENGTH) return undefined
    this.#bytes.set(wire, this.#signedAt + headBytes)
    this.#setSecret(secret)
    return this.#takeOut(this.#signedAt + headBytes, this.#exports.open(headBytes, textBytes))
  }

  sealPayload(secret: Int32Array, plaintext: Uint8Array): Uint8Array | undefined {
    if (plaintext.length > MAX_PLAIN_BYTES) return undefined
    this.#bytes.set(plaintext, this.#plainAt)
    this.#setSecret(secret)
    const textBytes = this.#exports.sealPayload(plaintext.length)
    return copyOf(this.#bytes.subarray(this.#signedAt, this.#signedAt + textBytes))
  }

  openPayload(secret: Int32Array, wire: Uint8Array): Uint8Array | undefined | 'too-large' {
    if (wire.length > MAX_TEXT_BYTES) return 'too-large'
    this.#bytes.set(wire, this.#signedAt)
    this.#setSecret(secret)
    return this.#takeOut(this.#signedAt, this.#exports.openPayload(wire.length))
  }

  sign(secret: Int32Array, signBytes: Uint8Array): string | undefined {
    if (signBytes.length > MAX_TEXT_BYTES) return undefined
    this.#bytes.set(signBytes, this.#signedAt)
    this.#setSecret(secret)
    this.#exports.sign(signBytes.length)
    return this.#msgKey()
  }

  /** A view of the text, undefined for what is too large. */
  #seal(secret: Int32Array, head: string, plaintext: Uint8Array): Uint8Array | undefined {
    const plainBytes = plaintext.length
    if (plainBytes > MAX_PLAIN_BYTES) return undefined
    const headBytes = this.#writeHead(head, MAX_TEXT_BYTES)
    if (headBytes < 0) return undefined
    this.#bytes.set(plaintext, this.#plainAt)
    this.#setSecret(secret)
    const from = this.#signedAt + headBytes
    return this.#bytes.subarray(from, from + this.#exports.seal(headBytes, plainBytes))
  }

  /** @returns how many bytes it is, or -1 when it and the text behind it might not fit */
  #writeHead(head: string, textBytes: number): number {
    const maxBytes = head.length * MAX_BYTES_PER_UNIT
    return maxBytes + textBytes > this.#maxSignedBytes ? -1 : this.#text.utf8Write(head, this.#signedAt, maxBytes)
  }

  #msgKey(): string {
    return this.#text.latin1Slice(this.#msgKeyAt, this.#msgKeyAt + MSG_KEY_LENGTH)
  }

  #setSecret(secret: Int32Array): void {
    const words = this.#secret
    for (let i = 0; i < SECRET_WORDS; i++) words[i] = secret[i]!
  }

  #takeOut(at: number, byteCount: number): Uint8Array | undefined {
    if (byteCount < 0) return undefined
    const view = this.#bytes.subarray(at, at + byteCount)
    const plaintext = copyOf(view)
    view.fill(0)
    return plaintext
  }
}

function copyOf(view: Uint8Array): Uint8Array {
  const bytes = allocateNative(view.length)
  bytes.set(view)
  return bytes
}
