import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import type { IMEngine } from 'imengine'
import { encode, FrameType, type SendPacket } from 'imengine/protocol'
import { seededRandom, socketPair } from 'imengine/testing'
import { stage, TEAM } from '../support.ts'

const INPUT_COUNT = 1_000_000

/** Whole frames to mutate: what real clients send. */
function seeds(): Uint8Array[] {
  const file = new URL('../vectors/frames-c2s.json', import.meta.url)
  const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as { vectors: { hex?: string }[] }
  return vectors.flatMap(({ hex }) => (hex === undefined ? [] : [Uint8Array.from(Buffer.from(hex, 'hex'))]))
}

/** Small, fast and repeatable: a million inputs want a generator that costs nothing. */
function xorshift(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

describe('hostile bytes', () => {
  // P6
  it('a million random and mutated inputs: nothing throws, nothing grows, neighbours keep chatting', async () => {
    const { engine, connect, clock, errors } = await stage({ plaintext: 'allow', limits: { maxQueuedPerUser: 50 } })
    const { client: ann } = await connect('ann')
    const { client: bob } = await connect('bob')
    const corpus = seeds()
    const below = xorshift(20_240_601)

    const input = (): Uint8Array => {
      if (below(3) === 0) return Uint8Array.from({ length: below(40) }, () => below(256))
      const bytes = Uint8Array.from(corpus[below(corpus.length)]!).subarray(0, 4_096)
      for (let count = below(4); count > 0; count--) bytes[below(bytes.length)] = below(256)
      return below(4) === 0 ? bytes.subarray(0, below(bytes.length + 1)) : bytes
    }

    const heapBefore = usedBytes()
    let fed = 0
    let victim = freshVictim(engine, below(3))
    while (fed < INPUT_COUNT) {
      for (let count = 0; count < 5_000; count++, fed++) {
        victim.receive(input())
        if (victim.isGone() || below(20) === 0) {
          victim.leave()
          victim = freshVictim(engine, below(3))
        }
      }
      await clock.settle()
      if (fed % 100_000 === 0) {
        expect(await ann.send({ ...TEAM, payload: `after ${fed}` })).toMatchObject({ reasonCode: 1 })
        expect((await bob.nextRecv()).text).toBe(`after ${fed}`)
      }
    }
    victim.leave()
    await clock.settle()
    expect(engine.connections.list().map(({ uid }) => uid).filter((uid) => uid === 'ann' || uid === 'bob')).toHaveLength(2)
    expect(engine.connections.list()).toHaveLength(2)
    expect(errors).toEqual([])
    expect(usedBytes() - heapBefore).toBeLessThan(32 * 1024 * 1024)
  }, 120_000)

  it('holds no more than what has arrived, however much is announced', async () => {
    const { engine } = await stage()
    const pairs = Array.from({ length: 200 }, () => socketPair())
    const before = process.memoryUsage().arrayBuffers
    for (const pair of pairs) {
      const connection = engine.accept(pair.server)
      connection.receive(Uint8Array.from([0x10, 0x80, 0x80, 0x40])) // 1 MiB announced
      for (let count = 0; count < 10; count++) connection.receive(Uint8Array.from([0]))
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 1024 * 1024)
  })

  it('lets nobody in by a frame that comes before, instead of or again after CONNECT', async () => {
    const { engine, connect, clock } = await stage()
    const send: SendPacket = { type: FrameType.SEND, flags: 0, setting: 0, clientSeq: 1, clientMsgNo: 'n', streamNo: '', ...TEAM, expireSec: 0, msgKey: '', topic: '', payload: Buffer.from('x') }
    for (const frame of [encode(send, 5), Uint8Array.of(0x70), encode({ type: FrameType.RECVACK, flags: 0, messageID: '1', messageSeq: 1 }, 5)]) {
      const pair = socketPair()
      pair.attach(engine.accept(pair.server))
      pair.client.write(frame)
      expect((await pair.client.closed).by).toBe('server')
      expect(pair.client.received).toHaveLength(0)
    }
    const { client, pair } = await connect('ann')
    client.write({ type: FrameType.CONNECT, flags: 0, version: 5, deviceFlag: 0, deviceID: 'd', uid: 'bob', token: '', clientTimestampMs: 0n, clientKey: '' })
    expect((await pair.client.closed).by).toBe('server')
    await clock.settle()
    expect(engine.connections.list()).toEqual([])
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })

  it('is not confused by uids and channel ids made to look like each other', async () => {
    const { engine, connect, clock } = await stage()
    for (const uid of ['1:team', '2:team', '__proto__', 'constructor', 'toString', 'аnn', 'ann\u200b', '😀', 'x'.repeat(32_767)]) {
      const { client } = await connect(uid, { deviceID: 'd' })
      expect(await client.send({ channelID: uid, channelType: 1, payload: 'me', clientMsgNo: 'n1' })).toMatchObject({ messageSeq: 1 })
      expect((await client.send({ ...TEAM, payload: 'x', clientMsgNo: 'n2' })).reasonCode).toBe(3)
    }
    await clock.settle()
    expect(await engine.messages.lastSeq(TEAM)).toBe(0)
  })
})

/** A connection to torment: one that has said nothing, one that is open in the clear, or one that is open and encrypted. */
function freshVictim(engine: IMEngine, kind: number): { receive(bytes: Uint8Array): void; isGone(): boolean; leave(): void } {
  let gone = false
  const end = (): void => {
    gone = true
  }
  const connection = engine.accept({ send: () => undefined, close: end, destroy: end, bufferedBytes: 0 })
  if (kind > 0) {
    // Agreeing on keys is slow, so only a few of them do.
    const clientKey = kind === 2 && ++victimCount % 20 === 0 ? CLIENT_KEY : ''
    connection.receive(encode({ type: FrameType.CONNECT, flags: 0, version: 5, deviceFlag: 1, deviceID: 'd', uid: 'mallory', token: '', clientTimestampMs: 0n, clientKey }, 5))
  }
  return {
    receive: (bytes) => connection.receive(bytes),
    isGone: () => gone,
    leave: () => connection.closed(),
  }
}

let victimCount = 0
const CLIENT_KEY = Buffer.from(seededRandom(7).bytes(32)).toString('base64')

/** Memory in use after a collection, so that only what is still reachable counts. */
function usedBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
