import { execFileSync } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { SealModule, SessionCipher, sealedByteCount } from 'imengine/protocol'
import { describe, expect, test } from 'vitest'
import { sealModuleFor } from '../../src/protocol/payload-crypto.ts'
import { SEAL_MODULE_BASE64 } from '../../src/protocol/seal-module-bytes.ts'
import { loadVectors } from './vectors.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
const CASES = Number(process.env['CASES'] ?? 1_000_000)

/** 32 bits at a time, the same for the same seed (xorshift). */
function chance(from: number): (below: number) => number {
  let state = (from ^ 0x9e3779b9) | 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

const module = SealModule.load()!

function pair(key: string, iv: string): { wasm: SessionCipher; node: SessionCipher } {
  return { wasm: new SessionCipher({ key, iv, module }), node: new SessionCipher({ key, iv }) }
}

test('the committed bytes are what the compiler makes of the source', () => {
  const printed = execFileSync(process.execPath, ['src/protocol/wasm/build.mjs', '--print'], { cwd: root, encoding: 'utf8' })
  expect(printed.trim() === SEAL_MODULE_BASE64).toBe(true)
}, 180_000)

describe('the module seals and opens as node:crypto does', () => {
  interface Vector { readonly kind: string; readonly aesKey: string; readonly aesIv: string; readonly plaintextHex: string; readonly payloadAscii: string; readonly verifyString: string; readonly msgKey: string }
  const vectors = loadVectors<Vector>('crypto.json')
  test.each(vectors.filter(({ kind }) => kind === 'payload'))('payload of $name', ({ aesKey, aesIv, plaintextHex, payloadAscii }: Vector) => {
    const { wasm } = pair(aesKey, aesIv)
    expect(Buffer.from(wasm.sealPayload(Buffer.from(plaintextHex, 'hex'))).toString()).toBe(payloadAscii)
    expect(Buffer.from(wasm.openPayload(Buffer.from(payloadAscii))!).toString('hex')).toBe(plaintextHex)
  })
  test.each(vectors.filter(({ kind }) => kind === 'msgKey'))('msgKey of $name', ({ aesKey, aesIv, payloadAscii, verifyString, msgKey }: Vector) => {
    const { wasm, node } = pair(aesKey, aesIv)
    const wire = Buffer.from(payloadAscii)
    const head = verifyString.slice(0, verifyString.length - payloadAscii.length)
    const plaintext = wasm.open(head, wire, msgKey)
    expect(wasm.sign(Buffer.from(verifyString))).toBe(msgKey)
    expect(plaintext).toEqual(node.open(head, wire, msgKey))
    expect(wasm.seal(head, plaintext!)).toEqual({ payload: wire, msgKey })
  })

  test(`${CASES} random texts, whole and damaged, have the same bytes and the same verdicts (SEED=${seed})`, () => {
    const below = chance(seed)
    const material = Buffer.from(Array.from({ length: 140_000 }, () => below(256)))
    const heads = ['', '1', 'a'.repeat(47), '1004f1d2a6b8c0e4d5f9a7b3c1000000000r000011', '用户😀\ud800'.repeat(9), 'é'.repeat(1_000), 'h'.repeat(5_000)]
    const alphabet = '0123456789abcdef'
    const text16 = (): string => Array.from({ length: 16 }, () => alphabet[below(16)]).join('')
    let keys = pair(text16(), text16())
    let accepted = 0
    let refused = 0
    for (let index = 0; index < CASES; index++) {
      // A new key often enough, and one that has been used before often enough.
      if (index % 64 === 0) keys = pair(text16(), text16())
      const { wasm, node } = keys
      const length = index % 10_000 === 0 ? below(70_000) : index % 1_000 === 0 ? below(4_000) : below(10) === 0 ? below(300) : below(48)
      const from = below(70_000)
      const plaintext = material.subarray(from, from + length)
      const head = heads[index % 500 === 0 ? below(7) : below(4)]!
      const kind = below(4)
      if (kind === 0) {
        const sealed = wasm.seal(head, plaintext)
        const expected = node.seal(head, plaintext)
        if (sealed.msgKey !== expected.msgKey || !Buffer.from(sealed.payload).equals(expected.payload)) expect.fail(`seal, case ${index}`)
        continue
      }
      // Of what node:crypto has sealed, the module opens exactly what node:crypto opens.
      const wire = Buffer.from(node.sealPayload(plaintext))
      if (kind === 2) damage(wire, below)
      const cut = kind === 3 ? wire.subarray(0, below(wire.length + 1)) : wire
      const isSigned = below(8) === 0
      const given = isSigned ? node.sign(Buffer.concat([Buffer.from(head), cut])) : undefined
      const msgKey = given !== undefined && below(4) === 0 ? flip(given, below) : given
      const opened = msgKey === undefined ? wasm.openPayload(cut) : wasm.open(head, cut, msgKey)
      const expected = msgKey === undefined ? node.openPayload(cut) : node.open(head, cut, msgKey)
      if (opened === undefined || expected === undefined ? opened !== expected : !Buffer.from(opened).equals(expected)) expect.fail(`open, case ${index}`)
      if (expected === undefined) refused++
      else accepted++
    }
    expect(accepted).toBeGreaterThan(CASES / 5)
    expect(refused).toBeGreaterThan(CASES / 5)
  }, 180_000)

  test('every length up to 5000, across the bounds of the module', () => {
    const { wasm, node } = pair('0123456789abcdef', 'ABCDEFGHIJKLMNOP')
    const bytes = Buffer.alloc(5_000, 7)
    for (let length = 0; length < 5_000; length += length < 100 || (length > 1_500 && length < 1_600) ? 1 : 61) {
      const sealed = wasm.seal('head', bytes.subarray(0, length))
      expect(sealed).toEqual(node.seal('head', bytes.subarray(0, length)))
      expect(sealed.payload).toHaveLength(sealedByteCount(length))
      expect(wasm.open('head', sealed.payload, sealed.msgKey)).toEqual(bytes.subarray(0, length))
    }
  })

  test('they are the AES, the base64 and the MD5 that everybody has', () => {
    const enc = (bytes: Uint8Array): string => {
      const cipher = createCipheriv('aes-128-cbc', '0123456789abcdef', 'ABCDEFGHIJKLMNOP')
      return Buffer.concat([cipher.update(bytes), cipher.final()]).toString('base64')
    }
    const payload = enc(Buffer.from('hello'))
    const msgKey = createHash('md5').update(enc(Buffer.from(`12${payload}`))).digest('hex')
    expect(pair('0123456789abcdef', 'ABCDEFGHIJKLMNOP').wasm.seal('12', Buffer.from('hello'))).toEqual({ payload: Buffer.from(payload), msgKey })
  })

  test('a msgKey of letters that are only almost the right ones is refused', () => {
    const { wasm } = pair('0123456789abcdef', 'ABCDEFGHIJKLMNOP')
    const { payload, msgKey } = wasm.seal('1', Buffer.from('hello'))
    for (let at = 0; at < 32; at++) {
      const almost = String.fromCharCode(msgKey.charCodeAt(at) | 0x100)
      expect(wasm.open('1', payload, msgKey.slice(0, at) + almost + msgKey.slice(at + 1))).toBe(undefined)
    }
    for (const wrong of ['', msgKey.slice(1), `${msgKey}0`, msgKey.toUpperCase().replace(/\d/g, 'A')]) expect(wasm.open('1', payload, wrong)).toBe(undefined)
    expect(wasm.open('1', payload, msgKey)).toEqual(Buffer.from('hello'))
  })
})

describe('what is left in the memory of the module', () => {
  test('after each call there is neither the key nor the plaintext in it', () => {
    let memory: WebAssemblyMemory | undefined
    const { WebAssembly } = globalThis as unknown as { WebAssembly: { Module: new (bytes: Uint8Array) => object; Instance: new (module: object) => { exports: object } } }
    const spied = SealModule.load({
      WebAssembly: {
        Module: WebAssembly.Module,
        Instance: class {
          readonly exports: object
          constructor(module: object) {
            this.exports = new WebAssembly.Instance(module).exports
            memory = (this.exports as { memory: WebAssemblyMemory }).memory
          }
        },
      },
    })!
    const key = 'the key, a cipher'.slice(0, 16)
    const cipher = new SessionCipher({ key, iv: 'ABCDEFGHIJKLMNOP', module: spied })
    const plaintext = Buffer.from('a plaintext that nobody else is to see, of more than one block')
    const held = (): boolean[] => [key, 'ABCDEFGHIJKLMNOP', 'nobody else is t'].map((secret) => Buffer.from(memory!.buffer).includes(secret))
    const none = [false, false, false]
    const { payload, msgKey } = cipher.seal('head', plaintext)
    expect(held()).toEqual(none)
    cipher.sealPayload(plaintext)
    expect(held()).toEqual(none)
    expect(cipher.open('head', payload, msgKey)).toEqual(plaintext)
    expect(held()).toEqual(none)
    expect(cipher.openPayload(payload)).toEqual(plaintext)
    expect(held()).toEqual(none)
    // Without its last block it decrypts, and is not padded.
    const cut = Buffer.from(Buffer.from(Buffer.from(payload).toString(), 'base64').subarray(0, 48).toString('base64'))
    expect(cipher.open('head', cut, cipher.sign(Buffer.concat([Buffer.from('head'), cut])))).toBe(undefined)
    expect(held()).toEqual(none)
  })
})

describe('where WebAssembly cannot be had', () => {
  test('it is missing', () => expect(SealModule.load({})).toBe(undefined))

  test('it does not compile, or not start', () => {
    class Refusing {
      constructor() {
        throw new Error('refused')
      }
    }
    class Compiling {}
    const never = Refusing as unknown as new () => { exports: object }
    expect(SealModule.load({ WebAssembly: { Module: Refusing, Instance: never } })).toBe(undefined)
    expect(SealModule.load({ WebAssembly: { Module: Compiling, Instance: never } })).toBe(undefined)
  })

  test("'auto' does without, says so once, and asks once", () => {
    let loads = 0
    let told = 0
    const ask = sealModuleFor('auto', () => void told++, () => void loads++)
    expect([loads, told]).toEqual([0, 0])
    expect([ask(), ask()]).toEqual([undefined, undefined])
    expect([loads, told]).toEqual([1, 1])
  })

  test("'wasm' is a TypeError at once", () => {
    expect(() => sealModuleFor('wasm', () => undefined, () => undefined)).toThrow(/^imengine: options\.payloadCrypto must be 'auto' or 'node' where/)
  })
})

test("'node' loads nothing; 'auto' loads at the first question, 'wasm' before it; both keep what they have", () => {
  let loads = 0
  const load = (): SealModule => {
    loads++
    return module
  }
  expect(sealModuleFor('node', () => expect.fail('told'), load)()).toBe(undefined)
  const auto = sealModuleFor('auto', () => expect.fail('told'), load)
  expect(loads).toBe(0)
  expect([auto(), auto()]).toEqual([module, module])
  expect(loads).toBe(1)
  const wasm = sealModuleFor('wasm', () => expect.fail('told'), load)
  expect(loads).toBe(2)
  expect(wasm()).toBe(module)
  expect(loads).toBe(2)
})

interface WebAssemblyMemory {
  readonly buffer: ArrayBuffer
}

function damage(bytes: Buffer, below: (bound: number) => number): void {
  const letters = 'AZaz09+/=-_ \n\u0000\u00ff'
  const at = below(4) === 0 ? bytes.length - 1 - below(4) : below(bytes.length)
  bytes[at] = letters.charCodeAt(below(letters.length))
}

function flip(msgKey: string, below: (bound: number) => number): string {
  const at = below(32)
  return msgKey.slice(0, at) + (msgKey[at] === '0' ? '1' : '0') + msgKey.slice(at + 1)
}
