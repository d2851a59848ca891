import type { Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { memoryStorage } from 'imengine'
import { encode, FrameType, type Frame, type SendackPacket, type SendPacket } from 'imengine/protocol'
import { deferred, storageWith } from '../support.ts'
import { edgeOf, realClock, ROOM, tcpPeer, until, type Peer, type Transport } from './edges/stage.ts'

const TRANSPORTS: readonly Transport[] = ['tcp', 'ws']
const PING = Uint8Array.of(0x70)

const range = (count: number, from = 1): number[] => Array.from({ length: count }, (_, index) => index + from)

function sendOf(clientSeq: number, payload: string): SendPacket {
  return {
    type: FrameType.SEND, flags: 0, setting: 0, clientSeq, clientMsgNo: `no-${clientSeq}`, streamNo: '', ...ROOM, expireSec: 0, msgKey: '', topic: '', payload: Buffer.from(payload),
  }
}

function connectOf(uid: string): Uint8Array {
  return encode({ type: FrameType.CONNECT, flags: 0, version: 5, deviceFlag: 0, deviceID: uid, uid, token: '', clientTimestampMs: 0n, clientKey: '' }, 5)
}

const sendacksOf = ({ client }: Peer): SendackPacket[] => client.received.filter((frame): frame is SendackPacket => frame.type === FrameType.SENDACK)
const countOf = ({ client }: Peer, type: Frame['type']): number => client.received.filter((frame) => frame.type === type).length

/** One message of the room after another, so many under way at a time. */
async function sendAll({ client }: Peer, count: number, payload: string, window = 200): Promise<SendackPacket[]> {
  const sendacks: SendackPacket[] = []
  while (sendacks.length < count) {
    const batch = range(Math.min(window, count - sendacks.length))
    sendacks.push(...(await Promise.all(batch.map(() => client.send({ ...ROOM, payload })))))
  }
  return sendacks
}

/** Takes what has come in small pieces, each in a turn of its own. */
function readSlowly(socket: Socket): void {
  socket.on('data', () => {
    socket.pause()
    setImmediate(() => socket.resume())
  })
}

describe.each(TRANSPORTS)('over %s', (transport) => {
  it('a client that reads slowly gets everything, once and in order', async () => {
    const edge = await edgeOf()
    const ann = await edge.login('ann', 'tcp')
    const bob = await edge.login('bob', transport)
    readSlowly(bob.socket)
    const sendacks = await sendAll(ann, 2_000, 'x'.repeat(1_000))
    await edge.neighboursChat()
    await until('bob has read everything', () => bob.client.messages.length >= 2_000)
    expect(bob.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(range(2_000))
    expect(edge.slow).toEqual([])
    await edge.checkRoom(sendacks)
    expect(edge.errors).toEqual([])
  })

  it('a client that reads nothing is cut off at maxOutboundBytes, and the others of its group miss nothing', async () => {
    const edge = await edgeOf({ limits: { maxOutboundBytes: 65_536 } })
    const ann = await edge.login('ann', 'tcp')
    const cat = await edge.login('cat', transport)
    const bob = await edge.login('bob', transport)
    bob.socket.pause()
    const sendacks: SendackPacket[] = []
    // What the kernel holds for a client that does not read is some megabytes, and nobody says how many.
    while (edge.slow.length === 0 && sendacks.length < 4_000) sendacks.push(...(await sendAll(ann, 20, 'x'.repeat(30_000))))
    await edge.neighboursChat()
    expect(edge.slow.map(({ connection, action }) => [connection.uid, action])).toEqual([['bob', 'disconnected']])
    expect(edge.engine.connections.list({ uid: 'bob' })).toEqual([])
    await until('cat has everything', () => cat.client.messages.length >= sendacks.length)
    expect(cat.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(range(sendacks.length))
    await edge.checkRoom(sendacks)
    expect(edge.errors).toEqual([])
  })

  it('a client that writes one byte at a time is served like any other', async () => {
    const edge = await edgeOf()
    const bob = await edge.login('bob', 'tcp')
    const ann = await edge.dial(transport)
    const bytes = Buffer.concat([connectOf('ann'), PING, ...range(5).map((seq) => encode(sendOf(seq, `number ${seq}`), 5)), PING])
    // SENDs before CONNACK are dropped, so the client waits for it, as SDKs should.
    const connectBytes = connectOf('ann').length
    for (const byte of bytes.subarray(0, connectBytes)) await writeByte(ann, byte)
    await until('CONNACK has come', () => countOf(ann, FrameType.CONNACK) === 1)
    for (const byte of bytes.subarray(connectBytes)) await writeByte(ann, byte)
    await until('everything is answered', () => sendacksOf(ann).length === 5 && countOf(ann, FrameType.PONG) === 2)
    expect(sendacksOf(ann).map(({ clientSeq, reasonCode, messageSeq }) => [clientSeq, reasonCode, messageSeq])).toEqual(range(5).map((seq) => [seq, 1, seq]))
    await until('bob has them', () => bob.client.messages.length >= 5)
    expect(bob.client.messages.map(({ text }) => text)).toEqual(range(5).map((seq) => `number ${seq}`))
    await edge.neighboursChat()
    await edge.checkRoom(sendacksOf(ann))
  })

  it('a stranger who writes one byte at a time is let go after connectTimeoutMs', async () => {
    const edge = await edgeOf()
    const stranger = await edge.dial(transport)
    let isGone = false
    void stranger.client.closed.then(() => (isGone = true))
    const connect = connectOf('ann')
    for (let index = 0; index < 20; index++) {
      await writeByte(stranger, connect[index]!)
      await edge.clock.advance(100)
    }
    await edge.clock.advance(200)
    await until('it is let go', () => isGone)
    expect(edge.refused.map(({ cause }) => cause)).toEqual(['connect-timeout'])
    await edge.neighboursChat()
  })

  it('clients that reset their connections leave nothing behind, and what was acknowledged is kept once', async () => {
    const edge = await edgeOf({}, ['ann', ...range(40).map((index) => `u${index}`)])
    const ann = await edge.login('ann', 'tcp')
    const peers = await Promise.all(range(40).map((index) => edge.login(`u${index}`, transport)))
    for (const peer of peers) {
      for (const seq of range(5)) peer.client.write(sendOf(seq, 'x'))
    }
    await until('somebody has been answered', () => peers.some((peer) => sendacksOf(peer).length > 0))
    for (const { socket } of peers) socket.resetAndDestroy()
    await until('they are gone', () => edge.engine.connections.list().length === 4)
    await edge.neighboursChat()
    const sendacks = peers.flatMap(sendacksOf)
    expect(sendacks.every(({ reasonCode }) => reasonCode === 1)).toBe(true)
    await edge.checkRoom(sendacks)
    const last = await edge.engine.messages.lastSeq(ROOM)
    await until('ann has what is kept', () => ann.client.messages.length >= last)
    expect(ann.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(range(last))
    expect(edge.errors).toEqual([])
  })

  it('a flood of PINGs and SUBs is answered, and the neighbours hear each other meanwhile', async () => {
    const edge = await edgeOf()
    const ann = await edge.login('ann', transport)
    const sub = encode({ type: FrameType.SUB, flags: 0, setting: 0, subNo: 's', ...ROOM, action: 0, param: '' }, 5)
    for (let round = 0; round < 20; round++) {
      ann.client.sendRaw(Buffer.alloc(300, PING)) // with the SUBs 8 000 frames, which is fewer than end a connection at once
      ann.client.sendRaw(Buffer.concat(range(100).map(() => sub)))
    }
    await edge.neighboursChat(100)
    await until('every SUB is answered', () => countOf(ann, FrameType.SUBACK) >= 2_000)
    await until('as many PINGs are answered as are never dropped', () => countOf(ann, FrameType.PONG) >= edge.engine.limits.maxQueuedPerUser)
    ann.client.sendRaw(sub)
    await until('it is served as before', () => countOf(ann, FrameType.SUBACK) > 2_000)
    expect(countOf(ann, FrameType.SUBACK)).toBe(2_001)
    expect(countOf(ann, FrameType.PONG)).toBeLessThanOrEqual(6_000)
    expect(edge.errors).toEqual([])
  })

  it('one that only asks, and never reads the answers, is cut off', async () => {
    const edge = await edgeOf({ limits: { maxOutboundBytes: 65_536 } })
    const ann = await edge.login('ann', transport)
    ann.socket.pause()
    const param = 'p'.repeat(30_000)
    const sub = encode({ type: FrameType.SUB, flags: 0, setting: 0, subNo: param, ...ROOM, action: 0, param: '' }, 5)
    for (let count = 0; edge.slow.length === 0 && count < 4_000; count++) {
      ann.client.sendRaw(sub)
      if (count % 20 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await until('it is cut off', () => edge.slow.length > 0)
    expect(edge.slow.map(({ connection, action }) => [connection.uid, action])).toEqual([['ann', 'disconnected']])
    await edge.neighboursChat()
    expect(edge.engine.connections.list({ uid: 'ann' })).toEqual([])
  })

  it('a frame of maxFrameBytes is read, and one byte more ends the connection before the body has come', async () => {
    const edge = await edgeOf()
    const { maxFrameBytes } = edge.engine.limits
    const ann = await edge.login('ann', transport)
    const head = encode(sendOf(1, ''), 5).subarray(2)
    const largest = encode(sendOf(1, 'x'.repeat(maxFrameBytes - head.length)), 5)
    expect(largest.length).toBe(maxFrameBytes + 4)
    ann.client.sendRaw(largest)
    await until('it is answered', () => sendacksOf(ann).length === 1)
    expect(sendacksOf(ann)[0]!.reasonCode).toBe(9) // longer than any payload may be, and the connection stays
    await ann.client.ping()

    let isGone = false
    void ann.client.closed.then(() => (isGone = true))
    ann.client.sendRaw(Uint8Array.of(0x30, 0x81, 0x80, 0x40)) // 1 048 577
    await until('it is let go', () => isGone)
    expect(edge.engine.connections.list({ uid: 'ann' })).toEqual([])
    await edge.neighboursChat()
    expect(await edge.engine.messages.lastSeq(ROOM)).toBe(0)
  })

  it('a receiver that acknowledges nothing costs what maxUnackedRecvs says, and finds everything when it comes back', async () => {
    const edge = await edgeOf({ limits: { maxUnackedRecvs: 50, maxReplay: 50 } })
    const given: number[] = []
    edge.engine.on('undelivered', ({ messages, uid }) => {
      if (uid === 'bob') given.push(...messages.map(({ messageSeq }) => messageSeq))
    })
    const ann = await edge.login('ann', 'tcp')
    const bob = await edge.login('bob', transport, { autoAck: false })
    const sendacks = await sendAll(ann, 120, 'x')
    await until('bob has them', () => bob.client.messages.length >= 120)
    expect(given).toEqual(range(70)) // beyond the bound the oldest are forgotten
    const { redeliverAfterMs, maxRedeliveries, timerTickMs } = edge.engine.limits
    for (let round = 1; round <= maxRedeliveries; round++) {
      await edge.pass(redeliverAfterMs + timerTickMs, [ann, bob])
      await until('the ones that are remembered have come again', () => bob.client.messages.length >= 120 + 50 * round)
    }
    await edge.pass(redeliverAfterMs + timerTickMs, [ann, bob])
    expect(bob.client.messages).toHaveLength(120 + 50 * maxRedeliveries)
    expect(given).toEqual(range(120)) // and in the end all are given up, each once
    bob.socket.destroy()
    await until('bob is gone', () => edge.engine.connections.list({ uid: 'bob' }).length === 0)
    for (let login = 1, seen = 0; login <= 3; login++, seen += 50) {
      const again = await edge.login('bob', transport)
      const expected = Math.min(50, 120 - seen)
      await until('what was missed has come', () => again.client.messages.length >= expected)
      expect(again.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(range(expected, seen + 1))
      await again.client.ping() // its acknowledgements are in front of it
      again.socket.destroy()
      await until('bob is gone', () => edge.engine.connections.list({ uid: 'bob' }).length === 0)
    }
    await edge.checkRoom(sendacks)
    await edge.neighboursChat()
  })
})

async function writeByte({ client }: Peer, byte: number): Promise<void> {
  client.sendRaw(Uint8Array.of(byte))
  await new Promise((resolve) => setImmediate(resolve))
}

describe('a WebSocket client that sends text', () => {
  it.each(['{"method":"ping","id":"1"}', ' {}', 'hello', ''])('(%j) is closed with 1003, before CONNECT and on an open connection, and nothing behind it is read', async (text) => {
    const edge = await edgeOf()
    for (const isOpen of [false, true]) {
      const { client, socket, webSocket } = await edge.dialWebSocket()
      let code = 0
      webSocket.once('close', (given: number) => (code = given))
      if (isOpen) await client.connect({ uid: 'ann', plaintext: true })
      socket.cork() // all of it in one piece, so that the server cannot have closed in between
      webSocket.send(text)
      if (!isOpen) client.sendRaw(connectOf('ann'))
      client.sendRaw(encode(sendOf(1, 'too late'), 5))
      socket.uncork()
      await until('it is closed', () => code !== 0)
      expect(code).toBe(1003)
      expect(countOf({ client, socket }, FrameType.SENDACK) + countOf({ client, socket }, FrameType.PONG)).toBe(0)
    }
    expect(await edge.engine.messages.lastSeq(ROOM)).toBe(0)
    await edge.neighboursChat()
  })
})

describe('a TCP client that ends its half', () => {
  it('has had what it sent before handled, and is gone', async () => {
    const edge = await edgeOf()
    const ann = await edge.login('ann', 'tcp')
    for (const seq of range(50)) ann.client.write(sendOf(seq, `number ${seq}`))
    ann.socket.end()
    await until('it is gone', () => edge.engine.connections.list({ uid: 'ann' }).length === 0)
    await edge.neighboursChat()
    expect(await edge.engine.messages.lastSeq(ROOM)).toBe(50)
    await edge.checkRoom(sendacksOf(ann))
    expect(edge.errors).toEqual([])
  })
})

describe('thousands of strangers', () => {
  it('fill maxUnauthenticated and no more, keep nobody out for longer than connectTimeoutMs, and disturb nobody who is in', async () => {
    const edge = await edgeOf({ limits: { maxUnauthenticated: 1_500 } })
    const strangers: Socket[] = []
    for (let count = 0; count < 2_000; count += 100) strangers.push(...(await Promise.all(range(100).map(() => edge.dialTCP()))))
    await until('all have been accepted or turned away', () => edge.accepted.length === 2_000 + 2) // two neighbours
    expect(edge.refused).toHaveLength(500)
    expect(new Set(edge.refused.map(({ cause }) => cause))).toEqual(new Set(['limit']))
    await edge.neighboursChat()
    const late = tcpPeer(await edge.dialTCP())
    await expect(late.client.connect({ uid: 'ann', plaintext: true })).rejects.toThrow()

    for (const socket of strangers) socket.resume()
    await edge.clock.advance(edge.engine.limits.connectTimeoutMs + 200)
    await until('they are gone', () => edge.accepted.filter(({ destroyed }) => !destroyed).length === 2)
    expect(edge.refused).toHaveLength(2_001)
    const ann = await edge.login('ann', 'tcp')
    await edge.checkRoom(await sendAll(ann, 10, 'x'))
    await edge.neighboursChat()
    expect(edge.errors).toEqual([])
  })

  it('may each send maxUnauthenticatedBytes before they are let in, and what they send is held by nobody', async () => {
    const answer = deferred<{ ok: true }>()
    const edge = await edgeOf({ tokenVerifier: ({ uid }) => (uid.startsWith('slow') ? answer.promise : { ok: true }) })
    const { maxUnauthenticatedBytes } = edge.engine.limits
    const sends = Buffer.concat(range(200).map((seq) => encode(sendOf(seq, 'x'.repeat(1_000)), 5)))
    expect(sends.length).toBeLessThan(maxUnauthenticatedBytes)
    const peers = await Promise.all(range(50).map((index) => edge.dial(index % 2 === 0 ? 'tcp' : 'ws').then((peer) => ({ ...peer, uid: `slow${index}` }))))
    const gone = new Set<string>()
    for (const { client, uid } of peers) {
      void client.closed.then(() => gone.add(uid))
      client.sendRaw(connectOf(uid))
      client.sendRaw(sends)
    }
    await edge.neighboursChat()
    expect(edge.refused).toEqual([])
    for (const { client } of peers.slice(0, 25)) client.sendRaw(sends)
    await until('half of them have sent too much', () => gone.size === 25)
    expect(edge.refused.map(({ cause }) => cause)).toEqual(range(25).map(() => 'limit'))
    answer.resolve({ ok: true })
    await until('the others are in', () => peers.slice(25).every((peer) => countOf(peer, FrameType.CONNACK) === 1))
    expect(peers.slice(0, 25).every(({ client }) => client.received.length === 0)).toBe(true)
    await edge.neighboursChat()
    expect(await edge.engine.messages.lastSeq(ROOM)).toBe(0)
  })
})

describe.each(TRANSPORTS)('an engine that was held up, over %s', (transport) => {
  /** As a long computation does, or SIGSTOP: no timer fires and nothing is read meanwhile. */
  const holdUp = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
  /** What is done behind it is followed by timers, and by reading only then. */
  const beforeTimers = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

  it('takes nobody for idle whose bytes wait, and lets go who was silent', async () => {
    const edge = await edgeOf({ clock: realClock(), limits: { idleTimeoutMs: 500, timerTickMs: 20 } }, ['ann', 'bob'])
    const ann = await edge.login('ann', transport)
    await edge.login('bob', transport)
    const pinging = setInterval(() => ann.client.sendRaw(PING), 50)
    onTestFinished(() => clearInterval(pinging))
    await beforeTimers()
    const pongCount = countOf(ann, FrameType.PONG)
    ann.client.sendRaw(PING)
    holdUp(1_000)
    await until('bob is gone', () => edge.engine.connections.list({ uid: 'bob' }).length === 0)
    await until('ann is answered', () => countOf(ann, FrameType.PONG) > pongCount)
    expect(edge.engine.connections.list({ uid: 'ann' })).toHaveLength(1)
  })

  it('lets in whose CONNECT waits', async () => {
    const edge = await edgeOf({ clock: realClock(), limits: { connectTimeoutMs: 500, timerTickMs: 20 } }, ['ann'])
    const ann = await edge.dial(transport)
    if (transport === 'tcp') await edge.serverEndOf(ann.socket) // a WebSocket is served when it is open
    await beforeTimers()
    ann.client.sendRaw(connectOf('ann'))
    holdUp(1_000)
    await until('CONNACK has come', () => countOf(ann, FrameType.CONNACK) === 1)
    expect(edge.refused).toEqual([])
  })

  it('sends nothing again that has been acknowledged meanwhile', async () => {
    const edge = await edgeOf({ clock: realClock(), limits: { redeliverAfterMs: 500, timerTickMs: 20 } }, ['ann', 'bob'])
    const ann = await edge.login('ann', 'tcp')
    const bob = await edge.login('bob', transport, { autoAck: false })
    await sendAll(ann, 20, 'x')
    await until('bob has them', () => bob.client.messages.length === 20)
    await beforeTimers()
    for (const message of bob.client.messages) bob.client.ack(message)
    holdUp(1_000)
    await bob.client.ping() // what would be sent again is in front of the answer
    await bob.client.ping()
    expect(bob.client.messages).toHaveLength(20)
  })
})

describe('a store that is slower than the load, for a minute', () => {
  it('is felt by who sends, as reason 22 and a paused socket; what waits stays within its bounds, and everything recovers', async () => {
    const storage = memoryStorage()
    const append = storage.messages.append.bind(storage.messages)
    const limits = { maxQueuedPerUser: 100, maxQueuedPerChannel: 200, maxBatchCount: 20 }
    let isSlow = true
    const edge = await edgeOf({
      limits,
      storage: storageWith(storage, {
        // Twenty messages of the room a second, where hundreds come.
        append: (batches) => (isSlow && batches.some(({ key }) => key.channelID === ROOM.channelID) ? new Promise((resolve) => void edge.clock.setTimer(1_000, () => resolve(append(batches)))) : append(batches)),
      }),
    })
    const waiting = new Set<string>()
    let mostWaiting = 0
    edge.engine.use('EventOnSend', function count(ctx) {
      if (ctx.frame.channelID !== ROOM.channelID) return
      waiting.add(ctx.frame.clientMsgNo)
      mostWaiting = Math.max(mostWaiting, waiting.size)
    })
    edge.engine.on('messageStored', ({ messages }) => {
      for (const { clientMsgNo } of messages) waiting.delete(clientMsgNo)
    })
    edge.engine.on('messageRefused', ({ clientMsgNo }) => void waiting.delete(clientMsgNo))

    const bob = await edge.login('bob', 'ws')
    const ann = await edge.login('ann', 'tcp')
    const served = await edge.serverEndOf(ann.socket)
    const settled: SendackPacket[] = []
    let sentCount = 0
    let pausedTurns = 0
    for (let turn = 0; turn < 600; turn++) {
      // The client, too, stops when its socket is full: what it does not send is not the engine's.
      for (let count = 0; count < 40 && !ann.socket.writableNeedDrain; count++, sentCount++) {
        void ann.client.send({ ...ROOM, payload: 'x'.repeat(200) }).then((sendack) => settled.push(sendack))
      }
      await until('what was sent has been read, or is not wanted', () => served.isPaused() || served.bytesRead === ann.socket.bytesWritten)
      await edge.clock.advance(100)
      if (served.isPaused()) pausedTurns++
    }
    await edge.neighboursChat()
    expect(pausedTurns).toBeGreaterThan(500)
    expect(settled.some(({ reasonCode }) => reasonCode === 22)).toBe(true)
    expect(mostWaiting).toBeLessThanOrEqual(limits.maxQueuedPerUser + limits.maxQueuedPerChannel + limits.maxBatchCount)

    isSlow = false
    for (let turn = 0; settled.length < sentCount && turn < 1_000; turn++) {
      await until('what was sent has been read, or is not wanted', () => served.isPaused() || served.bytesRead === ann.socket.bytesWritten || settled.length === sentCount)
      await edge.clock.advance(1_000)
      bob.client.sendRaw(PING)
    }
    await until('every SEND is answered', () => settled.length === sentCount)
    expect(served.isPaused()).toBe(false)
    expect(new Set(settled.map(({ reasonCode }) => reasonCode))).toEqual(new Set([1, 22]))
    expect(sendacksOf(ann)).toHaveLength(sentCount)
    expect(waiting.size).toBe(0)
    const kept = settled.filter(({ reasonCode }) => reasonCode === 1)
    expect(await edge.engine.messages.lastSeq(ROOM)).toBe(kept.length)
    await edge.checkRoom(settled)
    await until('bob has what is kept', () => bob.client.messages.length >= kept.length)
    expect(bob.client.messages.map(({ messageSeq }) => messageSeq)).toEqual(range(kept.length))
    expect((await ann.client.send({ ...ROOM, payload: 'as before' })).messageSeq).toBe(kept.length + 1)
    expect(edge.errors).toEqual([])
  })
})
