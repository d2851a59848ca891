import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { PeerPushRequest } from 'imengine'
import { sampleMessage } from 'imengine/testing'
import { decodePush, encodePush } from '../../../src/adapters/redis/push-bytes.ts'
import { decodeAnswer, decodeKick, decodePart, encodeAnswer, encodeKick, encodeParts, Kind, readHead, VERSION } from '../../../src/adapters/redis/frames.ts'

const key = { channelID: 'ann@bob', channelType: 1 }
const text = fc.string({ unit: 'grapheme', maxLength: 40 })
const count = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
const message = fc
  .record({
    messageID: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String),
    messageSeq: count,
    clientMsgNo: text,
    fromUID: text,
    channelID: fc.oneof(fc.constant(key.channelID), text),
    channelType: fc.integer({ min: 0, max: 255 }),
    payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    timestampMs: fc.double({ noNaN: true }),
    expireSec: count,
    topic: text,
    setting: fc.integer({ min: 0, max: 255 }),
    noPersist: fc.boolean(),
    redDot: fc.boolean(),
    syncOnce: fc.boolean(),
  })
  .chain((plain) =>
    fc
      .option(fc.record({ kind: fc.constantFrom('edited' as const, 'recalled' as const), version: count, byUID: text, timestampMs: count }), { nil: undefined })
      .map((revision) => (revision === undefined ? plain : { ...plain, revision })),
  )
const request: fc.Arbitrary<PeerPushRequest> = fc.record({
  key: fc.record({ channelID: text, channelType: fc.integer({ min: 0, max: 255 }) }),
  messages: fc.array(message, { maxLength: 5 }),
  uids: fc.array(text, { maxLength: 20 }),
})
const call = { nodeID: 1_022, life: '00ff00ff00ff00aa', callID: 2 ** 48 - 1 }

describe('a push as bytes', () => {
  it('comes back with every field as it was', () => {
    fc.assert(fc.property(request, (given) => {
      expect(decodePush(encodePush(given))).toEqual(given)
    }))
  })

  it('is no push when it is cut short anywhere, or followed by anything', () => {
    const bytes = encodePush({ key, messages: [sampleMessage(1, { topic: 't', revision: { kind: 'edited', version: 1, byUID: 'a', timestampMs: 1 } })], uids: ['bob'] })
    for (let end = 0; end < bytes.length; end++) expect(decodePush(bytes.subarray(0, end))).toBeUndefined()
    expect(decodePush(Buffer.concat([bytes, Buffer.of(0)]))).toBeUndefined()
  })

  it('is never a throw, whatever the bytes', () => {
    const bytes = encodePush({ key, messages: [sampleMessage(1)], uids: ['bob', 'cat'] })
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => void decodePush(Buffer.from(noise))))
    const change = fc.record({ at: fc.nat(bytes.length - 1), to: fc.integer({ min: 0, max: 255 }) })
    fc.assert(fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const damaged = Buffer.from(bytes)
      for (const { at, to } of changes) damaged[at] = to
      decodePush(damaged)
    }))
  })

  it('that claims more than it holds costs no memory', () => {
    const claim = Buffer.concat([Buffer.of(2, 0), Buffer.of(0xff, 0xff, 0xff, 0xff, 0x0f)]) // four thousand million uids
    expect(decodePush(claim)).toBeUndefined()
  })

  it('keeps nothing of the bytes it was read from', () => {
    const bytes = encodePush({ key, messages: [sampleMessage(1, { payload: Buffer.from('secret') })], uids: ['bob'] })
    const found = decodePush(bytes)
    bytes.fill(0)
    expect(Buffer.from(found!.messages[0]!.payload).toString()).toBe('secret')
  })
})

describe('frames', () => {
  it.each([
    ['a part', encodeParts(call, Buffer.from('abc'), 1024)[0]!, `0101${'03fe'}00ff00ff00ff00aaffffffffffff0000000300000000616263`],
    ['an answer', encodeAnswer(call, { nodeID: 3, life: '1111111111111111', outcome: 2 }), `0103${'03fe'}00ff00ff00ff00aaffffffffffff0003111111111111111102`],
    ['a kick', encodeKick(call, { uid: 'ann', deviceFlag: 1, deviceID: 'd', deviceLevel: 1 }), `0102${'03fe'}00ff00ff00ff00aaffffffffffff010103616e6e0164`],
  ])('%s is these bytes: nodes of an earlier build read them', (_name, frame, hex) => {
    expect(frame.toString('hex')).toBe(hex)
    expect(readHead(frame)).toMatchObject({ version: VERSION, ...call })
  })

  it('parts are no longer than is allowed, and are the whole in order', () => {
    const push = Buffer.from(Array.from({ length: 5_000 }, (_, index) => index % 251))
    const frames = encodeParts(call, push, 1_024)
    expect(Math.max(...frames.map((frame) => frame.length))).toBe(1_024)
    const parts = frames.map((frame) => decodePart(frame)!)
    expect(parts.map(({ start }) => start)).toEqual([0, 998, 1996, 2994, 3992, 4990])
    expect(Buffer.concat(parts.map(({ bytes }) => bytes)).equals(push)).toBe(true)
  })

  it('cut short anywhere are no frames', () => {
    const part = encodeParts(call, Buffer.from('abc'), 1024)[0]!
    const kick = encodeKick(call, { uid: 'ann', deviceFlag: 1, deviceID: 'd', deviceLevel: 1 })
    const answer = encodeAnswer(call, { nodeID: 3, life: '1111111111111111', outcome: 0 })
    for (let end = 0; end < 18; end++) expect(readHead(part.subarray(0, end))).toBeUndefined()
    for (let end = 18; end < 27; end++) expect(decodePart(part.subarray(0, end))).toBeUndefined()
    for (let end = 18; end < kick.length; end++) expect(decodeKick(kick.subarray(0, end))).toBeUndefined()
    for (let end = 18; end < answer.length; end++) expect(decodeAnswer(answer.subarray(0, end))).toBeUndefined()
    expect(readHead(kick)?.kind).toBe(Kind.Kick)
  })
})
