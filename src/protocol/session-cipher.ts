import { IMError } from '../errors.ts'
import { allocateNative, type NativeBuffer } from './native-buffer.ts'
import { NodeCipher } from './node-cipher.ts'
import type { Sealed, SealModule, SealTarget } from './seal-module.ts'

const BLOCK_BYTES = 16
const MSG_KEY_LENGTH = 32

/** The payload key of one connection, as the codec needs it. `SessionCipher` is one. */
export interface PayloadCipher {
  sealPayload(plaintext: Uint8Array): Uint8Array
  openPayload(wire: Uint8Array): Uint8Array | undefined
  sign(signBytes: Uint8Array): string
  /** Both at once: the text of `plaintext`, and the msgKey of `head` and that text. */
  seal(head: string, plaintext: Uint8Array): Sealed
  /** The same, written to where it is wanted. */
  sealInto(head: string, plaintext: Uint8Array, target: SealTarget): void
  /** Both at once: the plaintext, if `msgKey` is the one of `head` and `wire`. */
  open(head: string, wire: Uint8Array, msgKey: string): Uint8Array | undefined
}

/** How long the text of so many bytes of plaintext is. */
export function sealedByteCount(plainBytes: number): number {
  const cipherBytes = plainBytes + BLOCK_BYTES - (plainBytes % BLOCK_BYTES)
  return Math.ceil(cipherBytes / 3) * 4
}

/**
 * AES-128-CBC with PKCS#7 padding, base64 and MD5 under the one key and the one IV a connection has agreed on. Both ends
 * and both directions use the same; the text of equal plaintexts is equal. Source: wkproto 10.
 *
 * With a `SealModule` what is short, as chat messages are, is done by it, and all it keeps is the key. Everything else is done by
 * node:crypto, whose contexts are made when they are first needed. The results are the same.
 */
export class SessionCipher implements PayloadCipher {
  /** 16 bytes of key, 16 bytes of IV: small enough for V8 to keep them within the object */
  readonly #secret = new Int32Array(2 * BLOCK_BYTES / Int32Array.BYTES_PER_ELEMENT)
  readonly #module: SealModule | undefined
  #node: NodeCipher | undefined = undefined

  /**
   * @param parameters  `key` and `iv`, 16 ASCII characters each; `module`, left out, leaves everything to node:crypto
   * @throws IM_BAD_KEY  either is not
   */
  constructor(parameters: { readonly key: string; readonly iv: string; readonly module?: SealModule | undefined }) {
    const secret = new Uint8Array(this.#secret.buffer)
    secret.set(sixteenBytes(parameters.key, 'the payload key'))
    secret.set(sixteenBytes(parameters.iv, 'the salt'), BLOCK_BYTES)
    this.#module = parameters.module
  }

  /** Plaintext to the base64 text that travels, in memory of its own. */
  sealPayload(plaintext: Uint8Array): Uint8Array {
    return this.#module?.sealPayload(this.#secret, plaintext) ?? this.#byNode.sealPayload(plaintext)
  }

  /**
   * The base64 text back to plaintext, in memory of its own; undefined when it is not strict base64, not whole blocks or
   * not padded: nothing this key has made. Never throws.
   */
  openPayload(wire: Uint8Array): Uint8Array | undefined {
    const opened = this.#module === undefined ? 'too-large' : this.#module.openPayload(this.#secret, wire)
    return opened === 'too-large' ? this.#byNode.openPayload(wire) : opened
  }

  /** The msgKey for a sign string: MD5 of its encrypted base64 text, 32 lower-case hex characters. */
  sign(bytes: Uint8Array): string {
    return this.#module?.sign(this.#secret, bytes) ?? this.#byNode.sign(bytes)
  }

  /** The text of `plaintext` and the msgKey of `head` and that text, as `sealPayload` and `sign` make them. */
  seal(head: string, plaintext: Uint8Array): Sealed {
    return this.#module?.seal(this.#secret, head, plaintext) ?? this.#sealByNode(head, plaintext)
  }

  /** The same, written to `target`. */
  sealInto(head: string, plaintext: Uint8Array, target: SealTarget): void {
    if (this.#module?.sealInto(this.#secret, head, plaintext, target) === true) return
    const { payload, msgKey } = this.#sealByNode(head, plaintext)
    target.bytes.set(payload, target.payloadAt)
    for (let i = 0; i < MSG_KEY_LENGTH; i++) target.bytes[target.msgKeyAt + i] = msgKey.charCodeAt(i)
  }

  /**
   * The plaintext, in memory of its own; undefined when `msgKey` is not the one of `head` and `wire`, or as for `openPayload`.
   * Nothing is decrypted before the msgKey, compared in constant time, has proved right. Never throws.
   */
  open(head: string, wire: Uint8Array, msgKey: string): Uint8Array | undefined {
    const opened = this.#module === undefined ? 'too-large' : this.#module.open(this.#secret, head, wire, msgKey)
    if (opened !== 'too-large') return opened
    if (msgKey.length !== MSG_KEY_LENGTH) return undefined
    const expected = this.#byNode.sign(signBytes(head, wire))
    return isSameMsgKey(expected, msgKey) ? this.#byNode.openPayload(wire) : undefined
  }

  #sealByNode(head: string, plaintext: Uint8Array): Sealed {
    const payload = this.#byNode.sealPayload(plaintext)
    return { payload, msgKey: this.#byNode.sign(signBytes(head, payload)) }
  }

  get #byNode(): NodeCipher {
    return (this.#node ??= new NodeCipher(new Uint8Array(this.#secret.buffer)))
  }
}

/** What is signed: the fields' text, then the payload as it travels. */
function signBytes(head: string, payload: Uint8Array): NativeBuffer {
  const headBytes = Buffer.byteLength(head)
  const bytes = allocateNative(headBytes + payload.length)
  bytes.utf8Write(head, 0, headBytes)
  bytes.set(payload, headBytes)
  return bytes
}

/** Of two msgKeys: takes as long for one that is wrong in its first character as for one that is wrong in its last. */
function isSameMsgKey(expected: string, given: string): boolean {
  let difference = 0
  for (let i = 0; i < MSG_KEY_LENGTH; i++) difference |= expected.charCodeAt(i) ^ given.charCodeAt(i)
  return difference === 0
}

function sixteenBytes(text: string, what: string): Uint8Array {
  const bytes = Buffer.from(text)
  if (text.length !== BLOCK_BYTES || bytes.length !== BLOCK_BYTES) {
    throw new IMError('IM_BAD_KEY', { detail: `${what} is not 16 ASCII characters` })
  }
  return bytes
}
