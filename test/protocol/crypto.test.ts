import { createCipheriv, createDecipheriv } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { PayloadCipher } from '../../src/contracts/connection-view.ts'
import { FrameType, type RecvPacket, type SendPacket } from '../../src/model/frames.ts'
import { acceptKeyAgreement, ClientKeyAgreement } from '../../src/protocol/key-agreement.ts'
import { openRecv, openSend, sealRecv, sealSend } from '../../src/protocol/seal.ts'
import { SessionCipher } from '../../src/protocol/session-cipher.ts'
import { fuzz } from './arbitraries.ts'
import { readable } from './readable.ts'
import { loadVectors, vectorBytes, vectorFrame, type FrameVector } from './vectors.ts'

interface Keys {
  readonly name: string
  readonly aesKey: string
  readonly aesIv: string
}
interface Handshake extends Keys {
  readonly kind: 'handshake'
  readonly clientPrivateKey: string
  readonly clientKey: string
  readonly serverPrivateKey: string
  readonly serverKey: string
  readonly salt: string
}
interface Payload extends Keys {
  readonly kind: 'payload'
  readonly plaintextHex: string
  readonly payloadAscii: string
}
interface SignedFields {
  readonly clientSeq?: number
  readonly clientMsgNo: string
  readonly channelId: string
  readonly channelType: number
  readonly messageId?: string
  readonly messageSeq?: string
  readonly timestamp?: number
  readonly fromUid?: string
}
interface MsgKey extends Keys {
  readonly kind: 'msgKey'
  readonly direction: 'c2s' | 's2c'
  readonly fields: SignedFields
  readonly payloadAscii: string
  readonly verifyString: string
  readonly msgKey: string
}
interface Reject {
  readonly name: string
  readonly kind: 'reject'
  readonly clientKey?: string
  readonly fixture?: string
  readonly fields?: SignedFields
  readonly payloadAscii?: string
  readonly msgKey?: string
}

const vectors = loadVectors<Handshake | Payload | MsgKey | Reject>('crypto.json')
function ofKind<K extends (typeof vectors)[number]['kind']>(kind: K): Extract<(typeof vectors)[number], { kind: K }>[] {
  return vectors.filter((vector): vector is Extract<(typeof vectors)[number], { kind: K }> => vector.kind === kind)
}

function cipherOf(keys: { readonly aesKey: string; readonly aesIv: string }): SessionCipher {
  return new SessionCipher({ key: keys.aesKey, iv: keys.aesIv })
}
const fixtureA = ofKind('payload')[0]!

/** A random source that gives out these bytes, in this order. */
function scripted(...parts: Uint8Array[]): (count: number) => Uint8Array {
  let rest = Buffer.concat(parts)
  return (count) => {
    if (count > rest.length) throw new Error('the script is over')
    const given = rest.subarray(0, count)
    rest = rest.subarray(count)
    return given
  }
}

/** Random bytes that make up this salt. */
function saltBytes(salt: string): Uint8Array {
  return Uint8Array.from(salt, (c) => '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'.indexOf(c))
}

function sendOf(fields: SignedFields, payload: Uint8Array, msgKey = ''): SendPacket {
  return {
    type: FrameType.SEND,
    flags: 0,
    setting: 0,
    clientSeq: fields.clientSeq!,
    clientMsgNo: fields.clientMsgNo,
    streamNo: '',
    channelID: fields.channelId,
    channelType: fields.channelType,
    expireSec: 0,
    msgKey,
    topic: '',
    payload,
  }
}

function recvOf(fields: SignedFields, payload: Uint8Array, msgKey = ''): RecvPacket {
  return {
    type: FrameType.RECV,
    flags: 0,
    setting: 0,
    msgKey,
    fromUID: fields.fromUid!,
    channelID: fields.channelId,
    channelType: fields.channelType,
    expireSec: 0,
    clientMsgNo: fields.clientMsgNo,
    streamFlag: 0,
    streamNo: '',
    streamID: '0',
    messageID: fields.messageId!,
    messageSeq: Number(fields.messageSeq),
    timestampSec: fields.timestamp!,
    topic: '',
    payload,
  }
}

describe('key agreement', () => {
  test.each(ofKind('handshake'))('$name', (vector) => {
    const client = new ClientKeyAgreement(scripted(Buffer.from(vector.clientPrivateKey, 'hex')))
    expect(client.clientKey).toBe(vector.clientKey)
    const random = scripted(Buffer.from(vector.serverPrivateKey, 'hex'), saltBytes(vector.salt))
    const server = acceptKeyAgreement(vector.clientKey, random)
    expect(server.serverKey).toBe(vector.serverKey)
    expect(server.salt).toBe(vector.salt)
    const text = Buffer.from('what both ends can read')
    const expected = readable(cipherOf(vector).sealPayload(text))
    expect(readable(server.cipher.sealPayload(text))).toBe(expected)
    expect(readable(client.complete(vector.serverKey, vector.salt).sealPayload(text))).toBe(expected)
  })

  test.each(ofKind('reject').filter((vector) => vector.clientKey !== undefined))('$name', (vector) => {
    const random = (count: number): Uint8Array => new Uint8Array(count).fill(7)
    expect(() => acceptKeyAgreement(vector.clientKey!, random)).toThrow(expect.objectContaining({ code: 'IM_BAD_KEY' }))
    expect(() => new ClientKeyAgreement().complete(vector.clientKey!, '0123456789abcdef')).toThrow(
      expect.objectContaining({ code: 'IM_BAD_KEY' }),
    )
  })

  const lowOrder = [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ]
  test.each(lowOrder)('the low-order point %s is refused', (hex) => {
    const clientKey = Buffer.from(hex, 'hex').toString('base64')
    expect(() => acceptKeyAgreement(clientKey, (count) => new Uint8Array(count).fill(7))).toThrow(
      expect.objectContaining({ code: 'IM_BAD_KEY' }),
    )
  })

  test('an error does not repeat what the client sent', () => {
    try {
      acceptKeyAgreement('secret-looking text', (count) => new Uint8Array(count))
      expect.fail('it was refused')
    } catch (error) {
      expect(String(error)).not.toContain('secret-looking')
    }
  })

  test('the salt skips the bytes that would make some characters likelier', () => {
    const { clientKey } = new ClientKeyAgreement(() => new Uint8Array(32).fill(9))
    const tooHigh = Uint8Array.of(248, 249, 250, 251, 252, 253, 254, 255)
    const random = scripted(new Uint8Array(32).fill(5), tooHigh, saltBytes('0123456789ABCDEFGHIJKLMN'))
    expect(acceptKeyAgreement(clientKey, random).salt).toBe('0123456789ABCDEF')
  })

  test('the salt takes every character equally often', () => {
    const { clientKey } = new ClientKeyAgreement(() => new Uint8Array(32).fill(9))
    let next = 0
    const evenly = (count: number): Uint8Array =>
      count === 32 ? new Uint8Array(32).fill(5) : Uint8Array.from({ length: count }, () => next++ % 248)
    const counts = new Map<string, number>()
    // 31 salts use up every byte below 248 twice, which is every character eight times.
    for (let i = 0; i < 31; i++) {
      for (const character of acceptKeyAgreement(clientKey, evenly).salt) counts.set(character, (counts.get(character) ?? 0) + 1)
    }
    expect(counts.size).toBe(62)
    expect(new Set(counts.values())).toEqual(new Set([8]))
  })

  test('a source of chance that is none is named, not waited for', () => {
    const { clientKey } = new ClientKeyAgreement()
    expect(() => acceptKeyAgreement(clientKey, (count) => new Uint8Array(count).fill(255))).toThrow(TypeError)
    expect(() => acceptKeyAgreement(clientKey, () => new Uint8Array(31))).toThrow(TypeError)
  })

  test('by default no two clients have the same key', () => {
    expect(new ClientKeyAgreement().clientKey).not.toBe(new ClientKeyAgreement().clientKey)
  })
})

describe('payload', () => {
  test.each(ofKind('payload'))('$name', (vector) => {
    const cipher = cipherOf(vector)
    for (let i = 0; i < 3; i++) {
      expect(Buffer.from(cipher.sealPayload(Buffer.from(vector.plaintextHex, 'hex'))).toString()).toBe(vector.payloadAscii)
      expect(readable(cipher.openPayload(Buffer.from(vector.payloadAscii)))).toBe(vector.plaintextHex)
    }
  })

  /** The same by a fresh context for each text: what the kept one has to be equal to. */
  function sealAfresh(plaintext: Uint8Array): string {
    const cipher = createCipheriv('aes-128-cbc', fixtureA.aesKey, fixtureA.aesIv)
    return Buffer.concat([cipher.update(plaintext), cipher.final()]).toString('base64')
  }
  function openAfresh(wire: Buffer): string | undefined {
    const ciphertext = Buffer.from(wire.toString('latin1'), 'base64')
    if (ciphertext.toString('base64') !== wire.toString('latin1')) return undefined
    try {
      const decipher = createDecipheriv('aes-128-cbc', fixtureA.aesKey, fixtureA.aesIv)
      return Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString('hex')
    } catch {
      return undefined
    }
  }

  const step = fc.oneof(
    fc.record({ op: fc.constantFrom('seal' as const, 'sign' as const, 'open' as const), bytes: fc.uint8Array({ maxLength: 80 }) }),
    fc.record({ op: fc.constant('open-garbage' as const), bytes: fc.uint8Array({ maxLength: 80 }) }),
    fc.record({ op: fc.constant('open-noise' as const), bytes: fc.uint8Array({ maxLength: 64 }) }),
    fc.record({ op: fc.constant('open-noise' as const), bytes: fc.uint8Array({ minLength: 32, maxLength: 32 }) }),
  )

  test('any order of sealing, signing and opening, with garbage between, gives what a fresh key gives', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const cipher = cipherOf(fixtureA)
        const signer = cipherOf(fixtureA)
        for (const { op, bytes } of steps) {
          if (op === 'seal') expect(Buffer.from(cipher.sealPayload(bytes)).toString()).toBe(sealAfresh(bytes))
          else if (op === 'sign') expect(cipher.sign(bytes)).toBe(signer.sign(bytes))
          else if (op === 'open') expect(readable(cipher.openPayload(Buffer.from(sealAfresh(bytes))))).toBe(readable(bytes))
          else {
            // Whole blocks of noise are mostly refused for their padding, and sometimes happen to be padded right.
            const wire = op === 'open-garbage' ? Buffer.from(bytes) : Buffer.from(Buffer.from(bytes).toString('base64'))
            expect(readable(cipher.openPayload(wire))).toBe(openAfresh(wire))
          }
        }
      }),
      fuzz(400),
    )
  })

  test('neither the plaintext nor the wire bytes are changed, and results do not change later', () => {
    const cipher = cipherOf(fixtureA)
    const plaintext = Buffer.from('sixteen bytes :)')
    const wire = cipher.sealPayload(plaintext)
    const wireBefore = readable(wire)
    cipher.sign(plaintext)
    const opened = cipher.openPayload(wire)
    for (let i = 0; i < 100; i++) cipher.openPayload(cipher.sealPayload(Buffer.from(`other ${i}`)))
    expect(plaintext.toString()).toBe('sixteen bytes :)')
    expect(readable(wire)).toBe(wireBefore)
    expect(readable(opened)).toBe(readable(plaintext))
  })

  test('a bit flipped anywhere never throws, and never gives the plaintext', () => {
    const cipher = cipherOf(fixtureA)
    const plaintext = Buffer.from('the plaintext of more than one block')
    const wire = Buffer.from(cipher.sealPayload(plaintext))
    for (let bit = 0; bit < wire.length * 8; bit++) {
      const bent = Buffer.from(wire)
      bent[bit >> 3]! ^= 1 << (bit & 7)
      expect(readable(cipher.openPayload(bent))).not.toBe(readable(plaintext))
    }
    expect(readable(cipher.openPayload(wire))).toBe(readable(plaintext))
  })

  test('the cipher is what a connection holds', () => {
    const held: PayloadCipher = cipherOf(fixtureA)
    expect(held).toBeInstanceOf(SessionCipher)
  })

  test.each(['', 'short', '0123456789abcde', '0123456789abcdefg', '0123456789abcdeé'])('%j is no key and no salt', (text) => {
    const wanted = expect.objectContaining({ code: 'IM_BAD_KEY' }) as Error
    expect(() => new SessionCipher({ key: text, iv: '0123456789abcdef' })).toThrow(wanted)
    expect(() => new SessionCipher({ key: '0123456789abcdef', iv: text })).toThrow(wanted)
  })
})

describe('msgKey', () => {
  test.each(ofKind('msgKey'))('$name', (vector) => {
    const cipher = cipherOf(vector)
    expect(cipher.sign(Buffer.from(vector.verifyString))).toBe(vector.msgKey)
    const wire = Buffer.from(vector.payloadAscii)
    const plaintext = readable(cipher.openPayload(wire))
    if (vector.direction === 'c2s') {
      expect(readable(openSend(sendOf(vector.fields, wire, vector.msgKey), cipher))).toBe(plaintext)
      expect(sealSend(sendOf(vector.fields, cipher.openPayload(wire)!), cipher).msgKey).toBe(vector.msgKey)
    } else {
      expect(readable(openRecv(recvOf(vector.fields, wire, vector.msgKey), cipher))).toBe(plaintext)
      expect(sealRecv(recvOf(vector.fields, cipher.openPayload(wire)!), cipher).msgKey).toBe(vector.msgKey)
    }
    expect(plaintext).not.toBe(undefined)
  })

  const sealedVectors = [...loadVectors<FrameVector>('frames-c2s.json'), ...loadVectors<FrameVector>('frames-s2c.json')].filter(
    (vector) => vector.crypto !== undefined,
  )
  test.each(sealedVectors)('opens and seals again: $name', (vector) => {
    const cipher = cipherOf(vector.crypto!)
    const packet = vectorFrame(vector.frame)
    if (packet.type === FrameType.SEND) {
      const plaintext = openSend(packet, cipher)
      expect(readable(plaintext)).toBe(vector.crypto!.plaintextHex)
      expect(readable(sealSend({ ...packet, msgKey: '', payload: plaintext! }, cipher))).toEqual(readable(packet))
    } else if (packet.type === FrameType.RECV) {
      const plaintext = openRecv(packet, cipher)
      expect(readable(plaintext)).toBe(vector.crypto!.plaintextHex)
      expect(readable(sealRecv({ ...packet, msgKey: '', payload: plaintext! }, cipher))).toEqual(readable(packet))
    } else expect.fail('only SEND and RECV are sealed')
    expect(vectorBytes(vector).length).toBe(vector.consumed)
  })

  test.each(ofKind('reject').filter((vector) => vector.fields !== undefined))('$name', (vector) => {
    const packet = sendOf(vector.fields!, Buffer.from(vector.payloadAscii!), vector.msgKey)
    expect(openSend(packet, cipherOf(fixtureA))).toBe(undefined)
  })

  test('any signed field changed, and the msgKey changed, is refused', () => {
    const cipher = cipherOf(fixtureA)
    const sealedSend = sealSend(sendOf({ clientSeq: 5, clientMsgNo: 'no', channelId: 'g', channelType: 2 }, Buffer.from('hi')), cipher)
    const sealedRecv = sealRecv(
      recvOf(
        { messageId: '9', messageSeq: '3', timestamp: 7, fromUid: 'u', clientMsgNo: 'no', channelId: 'g', channelType: 2 },
        Buffer.from('hi'),
      ),
      cipher,
    )
    const otherPayload = Buffer.from(cipher.sealPayload(Buffer.from('ho')))
    const changes = [
      { clientSeq: 6 },
      { messageID: '10' },
      { messageSeq: 4 },
      { timestampSec: 8 },
      { fromUID: 'v' },
      { clientMsgNo: 'on' },
      { channelID: 'h' },
      { channelType: 3 },
      { payload: otherPayload },
      { msgKey: sealedSend.msgKey.toUpperCase() },
      { msgKey: sealedSend.msgKey.slice(1) },
      { msgKey: `${sealedSend.msgKey}0` },
      { msgKey: '' },
      { msgKey: '用'.repeat(32) },
    ]
    expect(readable(openSend(sealedSend, cipher))).toBe('6869')
    expect(readable(openRecv(sealedRecv, cipher))).toBe('6869')
    let sendChanges = 0
    let recvChanges = 0
    for (const change of changes) {
      const field = Object.keys(change)[0]!
      if (field in sealedSend && openSend({ ...sealedSend, ...change }, cipher) === undefined) sendChanges++
      if (field in sealedRecv && openRecv({ ...sealedRecv, ...change }, cipher) === undefined) recvChanges++
    }
    expect({ sendChanges, recvChanges }).toEqual({ sendChanges: 10, recvChanges: 13 })
  })

  test('what is not signed may change: flags, setting, expiry, topic', () => {
    const cipher = cipherOf(fixtureA)
    const sealed = sealSend(sendOf({ clientSeq: 5, clientMsgNo: 'no', channelId: '用户', channelType: 2 }, Buffer.from('hi')), cipher)
    expect(readable(openSend({ ...sealed, flags: 8, setting: 8, expireSec: 5, topic: 't' }, cipher))).toBe('6869')
  })

  test('what one connection sealed no other opens', () => {
    const sealed = sealSend(sendOf({ clientSeq: 5, clientMsgNo: 'no', channelId: 'g', channelType: 2 }, Buffer.from('hi')), cipherOf(fixtureA))
    const other = new SessionCipher({ key: fixtureA.aesKey, iv: '0000000000000000' })
    expect(openSend(sealed, other)).toBe(undefined)
  })
})
