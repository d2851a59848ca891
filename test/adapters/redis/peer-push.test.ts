import { once } from 'node:events'
import type { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { IMError, PeerPush, PeerPushHost, PeerPushRequest } from 'imengine'
import { redisCluster, type RedisCluster, type RedisClusterOptions } from 'imengine/redis'
import { sampleMessage } from 'imengine/testing'
import { decodeAnswer, encodeAnswer, encodeKick, encodeParts, Kind, Outcome, readHead } from '../../../src/adapters/redis/frames.ts'
import { encodePush } from '../../../src/adapters/redis/push-bytes.ts'
import { hasRedisServer, RedisServer, until } from './redis-server.ts'

const never = (): AbortSignal => new AbortController().signal
const ROOM = { channelID: 'room', channelType: 2 }
const pushOf = (seq: number, payload = Buffer.from('x')): PeerPushRequest => ({ key: ROOM, messages: [sampleMessage(seq, { messageSeq: seq, payload })], uids: ['bob'] })
const KICK = { uid: 'ann', deviceFlag: 0, deviceID: 'd', deviceLevel: 1 }
const UNREACHABLE = { code: 'IM_PEER_UNREACHABLE' }

describe.skipIf(!hasRedisServer())('pushes over Redis', () => {
  let server: RedisServer
  let raw: Redis
  let clusterCount = 0
  const clusters: RedisCluster[] = []
  const errors: IMError[] = []

  beforeAll(async () => {
    server = await RedisServer.start()
    raw = server.client()
  })
  afterAll(async () => {
    raw.disconnect()
    await server.stop()
  })
  afterEach(async () => {
    await Promise.all(clusters.splice(0).map((cluster) => cluster.close()))
    errors.length = 0
    clusterCount++
  })

  const prefix = (): string => `t${clusterCount}:`

  async function node(nodeID: number, over: Partial<PeerPushHost> = {}, options: Partial<RedisClusterOptions> = {}) {
    const cluster = redisCluster({ url: server.url, prefix: prefix(), onError: (error) => errors.push(error), ...options })
    clusters.push(cluster)
    const seqs: number[] = []
    await cluster.peerPush.start({
      nodeID,
      pushed: ({ messages }) => void seqs.push(...messages.map(({ messageSeq }) => messageSeq)),
      kicked: () => undefined,
      ...over,
    })
    return { ...cluster, seqs }
  }

  /** A node that is written by hand: says what it hears. */
  async function stranger(nodeID: number, channel = `peer:${nodeID}`) {
    const client = server.client()
    const frames: Buffer[] = []
    client.on('messageBuffer', (_channel: Buffer, frame: Buffer) => frames.push(frame))
    await client.subscribe(`${prefix()}${channel}`)
    return { client, frames }
  }

  const push = async (peer: PeerPush, nodeID: number, request: PeerPushRequest, signal = never()): Promise<void> => peer.push(nodeID, request, signal)

  it('fail at once where nobody listens, however long they could wait', async () => {
    const one = await node(1, {}, { answerTimeoutMs: 600_000 })
    await expect(push(one.peerPush, 7, pushOf(1))).rejects.toMatchObject({ ...UNREACHABLE, context: { nodeID: 7 }, detail: 'nobody listens there' })
  })

  it('give up a node that listens and is silent after answerTimeoutMs', async () => {
    const one = await node(1, {}, { answerTimeoutMs: 50 })
    const { client } = await stranger(7)
    await expect(push(one.peerPush, 7, pushOf(1))).rejects.toMatchObject({ ...UNREACHABLE, detail: 'no answer in time' })
    client.disconnect()
  })

  it('of several megabytes arrive whole, in parts of maxPublishBytes, between others in order', async () => {
    const payloads: number[] = []
    const one = await node(1, {}, { maxPublishBytes: 100_000 })
    await node(2, { pushed: ({ messages }) => void payloads.push(messages[0]!.payload.length, messages[0]!.payload.at(-1)!) })
    const sizes = [10, 3_000_000, 20, 250_000, 30]
    await Promise.all(sizes.map((size, index) => push(one.peerPush, 2, pushOf(index, Buffer.alloc(size, index + 1)))))
    expect(payloads).toEqual(sizes.flatMap((size, index) => [size, index + 1]))
  })

  it('that are too many, or too large together, fail, and the next is made when there is room', async () => {
    let open: () => void = () => undefined
    const opened = new Promise<void>((resolve) => (open = resolve))
    const one = await node(1, {}, { maxCallCount: 2, maxCallBytes: 4_096 })
    await node(2, { pushed: () => opened })
    const waiting = [push(one.peerPush, 2, pushOf(1)), push(one.peerPush, 2, pushOf(2))]
    await expect(push(one.peerPush, 2, pushOf(3))).rejects.toMatchObject({ ...UNREACHABLE, detail: expect.stringContaining('maxCallCount') as string })
    await expect(Promise.resolve(one.peerPush.kick(KICK, never()))).rejects.toMatchObject(UNREACHABLE)
    open()
    await Promise.all(waiting)
    await expect(push(one.peerPush, 2, pushOf(4, Buffer.alloc(5_000)))).rejects.toMatchObject({ ...UNREACHABLE, detail: expect.stringContaining('maxCallBytes') as string })
    await push(one.peerPush, 2, pushOf(5, Buffer.alloc(3_000)))
  })

  it('that are more than a node lets wait are refused by it, and it goes on', async () => {
    let open: () => void = () => undefined
    const opened = new Promise<void>((resolve) => (open = resolve))
    const one = await node(1)
    await node(2, { pushed: () => opened }, { maxCallBytes: 4_096 })
    const first = push(one.peerPush, 2, pushOf(1, Buffer.alloc(3_000)))
    await expect(push(one.peerPush, 2, pushOf(2, Buffer.alloc(3_000)))).rejects.toMatchObject({ ...UNREACHABLE, detail: 'too much waits there' })
    open()
    await first
    await push(one.peerPush, 2, pushOf(3, Buffer.alloc(3_000)))
  })

  it('that are tried again while the first try is still under way are taken over once', async () => {
    let open: () => void = () => undefined
    const opened = new Promise<void>((resolve) => (open = resolve))
    const seqs: number[] = []
    const one = await node(1)
    await node(2, { pushed: async ({ messages }) => (seqs.push(messages[0]!.messageSeq), opened) })
    const request = pushOf(1)
    for (let count = 0; count < 3; count++) {
      const patience = new AbortController()
      const trying = expect(push(one.peerPush, 2, request, patience.signal)).rejects.toMatchObject(UNREACHABLE)
      await until(() => seqs.length > 0, 'it has arrived')
      patience.abort()
      await trying
    }
    open()
    await push(one.peerPush, 2, request)
    expect(seqs).toEqual([1])
    await push(one.peerPush, 2, request) // it was confirmed: this is another one
    expect(seqs).toEqual([1, 1])
  })

  it('with the same object and other content are another push', async () => {
    let open: () => void = () => undefined
    const opened = new Promise<void>((resolve) => (open = resolve))
    const seqs: number[] = []
    const one = await node(1, {}, { answerTimeoutMs: 100 })
    await node(2, { pushed: async ({ messages }) => (seqs.push(messages[0]!.messageSeq), opened) })
    const request = { ...pushOf(1) } as { -readonly [K in keyof PeerPushRequest]: PeerPushRequest[K] }
    await expect(push(one.peerPush, 2, request)).rejects.toMatchObject(UNREACHABLE)
    open()
    request.messages = [sampleMessage(2, { messageSeq: 2 })]
    await push(one.peerPush, 2, request)
    expect(seqs).toEqual([1, 2])
  })

  it('nothing that is published by somebody else throws, and it is reported at most once a second', async () => {
    const one = await node(1)
    const two = await node(2)
    const call = { nodeID: 7, life: 'aaaaaaaaaaaaaaaa', callID: 5 }
    const good = encodeParts(call, encodePush(pushOf(9)), 1_024)[0]!
    const noise = [
      Buffer.alloc(0), Buffer.of(1), Buffer.alloc(18), Buffer.alloc(18, 255), Buffer.alloc(4_000, 1), Buffer.from('hello'),
      encodeAnswer(call, { nodeID: 2, life: 'bbbbbbbbbbbbbbbb', outcome: 0 }), encodeKick(call, KICK).subarray(0, 20),
      ...Array.from({ length: good.length }, (_, index) => good.subarray(0, index)),
      ...Array.from({ length: good.length }, (_, index) => {
        const damaged = Buffer.from(good)
        damaged[index]! ^= 0x55
        return damaged
      }),
    ]
    for (const frame of noise) for (const channel of ['peer:2', 'peer:all']) await raw.publish(`${prefix()}${channel}`, frame)
    await push(one.peerPush, 2, pushOf(1))
    expect(two.seqs).toContain(1)
    expect(errors.length).toBeGreaterThan(0)
    expect(errors.length).toBeLessThan(20)
    expect(errors.every(({ code }) => code === 'IM_PEER_UNREACHABLE')).toBe(true)
  })

  it('a frame of another version is answered with "not understood", in the version of this one', async () => {
    await node(2)
    const { client, frames } = await stranger(7)
    for (const kind of [Kind.Part, Kind.Kick, 99]) {
      const frame = encodeParts({ nodeID: 7, life: 'aaaaaaaaaaaaaaaa', callID: kind }, Buffer.from('of later days'), 1_024)[0]!
      frame[0] = 2
      frame[1] = kind
      await raw.publish(`${prefix()}peer:2`, frame)
    }
    await until(() => frames.length === 3, 'all have been answered')
    expect(frames.map((frame) => [readHead(frame)?.callID, decodeAnswer(frame)?.nodeID, decodeAnswer(frame)?.outcome])).toEqual(
      [Kind.Part, Kind.Kick, 99].map((kind) => [kind, 2, Outcome.NotUnderstood]),
    )
    client.disconnect()
  })

  it('a push that lacks a part is answered as failed, and the next one of the same node is taken', async () => {
    const two = await node(2)
    const { client, frames } = await stranger(7)
    const call = (callID: number) => ({ nodeID: 7, life: 'aaaaaaaaaaaaaaaa', callID })
    const [first, , third] = encodeParts(call(1), encodePush(pushOf(1, Buffer.alloc(3_000))), 1_024)
    for (const frame of [first!, third!, ...encodeParts(call(2), encodePush(pushOf(2)), 1_024)]) await raw.publish(`${prefix()}peer:2`, frame)
    await until(() => frames.length === 2, 'both have been answered')
    expect(frames.map((frame) => [readHead(frame)?.callID, decodeAnswer(frame)?.outcome])).toEqual([[1, Outcome.Failed], [2, Outcome.Taken]])
    expect(two.seqs).toEqual([2])
    client.disconnect()
  })

  it('a kick waits for every subscriber where nobody sends heartbeats', async () => {
    const one = await node(1, {}, { answerTimeoutMs: 200 })
    await node(2)
    await one.peerPush.kick(KICK, never())
    const { client } = await stranger(7, 'peer:all') // a machine that is gone and that Redis still counts
    await expect(one.peerPush.kick(KICK, never())).rejects.toMatchObject(UNREACHABLE)
    const closed = once(client, 'end')
    client.disconnect()
    await closed
    await until(() => Promise.resolve(one.peerPush.kick(KICK, never())).then(() => true, () => false), 'it is confirmed again')
  })

  it('a kick waits for the nodes that live where they say so, and for no others', async () => {
    const kicked: number[] = []
    const one = await node(1, {}, { answerTimeoutMs: 200 })
    const two = await node(2, { kicked: () => void kicked.push(2) })
    for (const [nodeID, { presence }] of [[1, one], [2, two], [3, one]] as const) await presence.heartbeat(nodeID, 60_000)
    await expect(one.peerPush.kick(KICK, never())).rejects.toMatchObject(UNREACHABLE) // node 3 lives, and does not confirm
    expect(kicked).toEqual([2])
    await one.presence.leave(3)
    const { client } = await stranger(7, 'peer:all')
    await one.peerPush.kick(KICK, never())
    expect(kicked).toEqual([2, 2])
    client.disconnect()
  })

  it('are not made before the peer is started, and it is started once', async () => {
    const cluster = redisCluster({ url: server.url, prefix: prefix() })
    clusters.push(cluster)
    await expect(push(cluster.peerPush, 2, pushOf(1))).rejects.toMatchObject({ ...UNREACHABLE, detail: 'the peer is not started' })
    const host = { nodeID: 1, pushed: () => undefined, kicked: () => undefined }
    await expect(Promise.resolve(cluster.peerPush.start({ ...host, nodeID: 4_000 }))).rejects.toThrow(/nodeID must be an integer from 0 to 1023/)
    await cluster.peerPush.start(host)
    await expect(Promise.resolve(cluster.peerPush.start(host))).rejects.toThrow(TypeError)
    await expect(push(cluster.peerPush, -1, pushOf(1))).rejects.toThrow(TypeError)
  })
})
