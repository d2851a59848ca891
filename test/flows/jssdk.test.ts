import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { ChannelType, DeviceLevel, IMEngine, MemberRole, personChannelID, ReasonCode, type Message } from 'imengine'
import { attachWebSocketServer } from 'imengine/ws'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { WebSocketServer } from 'ws'
import { buildSDKClient, SDKClient } from './sdk-process.ts'

// The SDK's ConnectStatus.
const CONNECTED = 1
const REFUSED = 3
const KICKED = 4
const DISCONNECTED = 0

/** The client SDK from npm, unmodified, each user in a process of its own, against an engine over a real WebSocket. */
describe('wukongimjssdk 1.0.4', { timeout: 60_000 }, () => {
  const engine = new IMEngine({
    tokenVerifier: ({ uid, token }) =>
      token === `token-of-${uid}` ? { ok: true, deviceLevel: uid.startsWith('master') ? DeviceLevel.Master : DeviceLevel.Slave } : { ok: false },
    limits: { kickLingerMs: 100 },
  })
  const clients: SDKClient[] = []
  const wire: Buffer[] = []
  let wss: WebSocketServer
  let addr: string
  let program: Awaited<ReturnType<typeof buildSDKClient>>

  beforeAll(async () => {
    program = await buildSDKClient()
    await engine.start()
    wss = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    attachWebSocketServer(engine, wss)
    wss.on('connection', (socket) => socket.on('message', (bytes: Buffer) => wire.push(bytes)))
    await once(wss, 'listening')
    addr = `ws://127.0.0.1:${(wss.address() as AddressInfo).port}`
  })

  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end()))
  })

  afterAll(async () => {
    wss.close()
    await engine.close()
    await program.remove()
  })

  function client(): SDKClient {
    const started = new SDKClient(program.path)
    clients.push(started)
    return started
  }

  /** Users that are connected. */
  async function connected<const U extends string[]>(...uids: U): Promise<{ [I in keyof U]: SDKClient }> {
    const started = uids.map(client)
    await Promise.all(started.map((one, index) => one.connect({ addr, uid: uids[index] ?? '' })))
    for (const one of started) expect(await one.next('status')).toMatchObject({ status: CONNECTED, reasonCode: ReasonCode.Success })
    return started as { [I in keyof U]: SDKClient }
  }

  const group = (channelID: string): { channelID: string; channelType: number } => ({ channelID, channelType: ChannelType.Group })
  const person = (channelID: string): { channelID: string; channelType: number } => ({ channelID, channelType: ChannelType.Person })

  async function stored(key: { channelID: string; channelType: number }): Promise<Message[]> {
    const messages: Message[] = []
    for await (const message of engine.messages.range(key)) messages.push(message)
    return messages
  }

  test('connects as a web device of protocol version 2', async () => {
    await connected('ann')
    expect(engine.connections.list({ uid: 'ann' })).toMatchObject([{ uid: 'ann', deviceFlag: 1, deviceLevel: DeviceLevel.Slave, version: 2 }])
  })

  test('is refused with reason 2 for a wrong token, and the server ends the socket', async () => {
    const ann = client()
    await ann.connect({ addr, uid: 'ann', token: 'wrong' })
    expect(await ann.next('status')).toMatchObject({ status: REFUSED, reasonCode: ReasonCode.AuthFail })
    // The SDK leaves the socket open: this is the server closing it.
    expect(await ann.next('status')).toMatchObject({ status: DISCONNECTED })
    expect(engine.connections.list({ uid: 'ann' })).toEqual([])
  })

  // P9
  test('two people talk both ways, encrypted, and see each other as the channel', async () => {
    const [ann, bob] = await connected('ann-1', 'bob-1')
    ann.send(person('bob-1'), 'Ahoj Böb, 你好')
    const first = await bob.next('message')
    expect(first).toMatchObject({ fromUID: 'ann-1', channelID: 'ann-1', channelType: ChannelType.Person, text: 'Ahoj Böb, 你好', messageSeq: 1, redDot: true })
    expect(Math.abs(first.timestampSec - Date.now() / 1000)).toBeLessThan(60)

    bob.send(person('ann-1'), 'nice to read you')
    expect(await ann.next('message')).toMatchObject({ fromUID: 'bob-1', channelID: 'bob-1', text: 'nice to read you', messageSeq: 2 })

    const log = await stored({ channelID: personChannelID('ann-1', 'bob-1'), channelType: ChannelType.Person })
    expect(log.map(({ payload }) => JSON.parse(Buffer.from(payload).toString()) as unknown)).toEqual([
      { type: 1, content: 'Ahoj Böb, 你好' },
      { type: 1, content: 'nice to read you' },
    ])
    // In the clear nowhere on the way.
    expect(wire.some((bytes) => bytes.includes('ann-1'))).toBe(true)
    expect(wire.some((bytes) => bytes.includes('nice to read you') || bytes.includes('"content"'))).toBe(false)
  })

  test('every channel counts from 1, and SENDACK tells the stored ids', async () => {
    await engine.channels.create(group('count'), { subscribers: ['ann-2', 'bob-2'] })
    const [ann, bob] = await connected('ann-2', 'bob-2')
    ann.send(person('bob-2'), 'one', 'two')
    ann.send(group('count'), 'one', 'two', 'three')
    const acks = await ann.take('ack', 5)
    expect(acks.map(({ clientSeq }) => clientSeq).sort()).toEqual([1, 2, 3, 4, 5])
    expect(acks.every(({ reasonCode }) => reasonCode === ReasonCode.Success)).toBe(true)
    const seqOf = new Map(acks.map(({ clientSeq, messageSeq }) => [clientSeq, messageSeq]))
    expect([1, 2, 3, 4, 5].map((clientSeq) => seqOf.get(clientSeq))).toEqual([1, 2, 1, 2, 3])

    const received = await bob.take('message', 5)
    expect(new Set(received.map(({ messageID }) => messageID))).toEqual(new Set(acks.map(({ messageID }) => messageID)))
  })

  test('a group message reaches every other member and not its sender', async () => {
    await engine.channels.create(group('trio'), { subscribers: ['ann-3', 'bob-3', 'cay-3'] })
    const [ann, bob, cay, dan] = await connected('ann-3', 'bob-3', 'cay-3', 'dan-3')
    ann.send(group('trio'), 'hello all')
    for (const member of [bob, cay]) {
      expect(await member.next('message')).toMatchObject({ fromUID: 'ann-3', channelID: 'trio', channelType: ChannelType.Group, text: 'hello all', messageSeq: 1 })
    }
    // A later message that everybody gets shows that nothing else was on its way.
    await Promise.all(['ann-3', 'dan-3'].map((uid) => engine.messages.send({ ...person(uid), fromUID: 'system', payload: Buffer.from('{"type":1,"content":"last"}') })))
    expect(await ann.next('message')).toMatchObject({ text: 'last' })
    expect(await dan.next('message')).toMatchObject({ text: 'last' })
  })

  // P9
  test('1,000 messages arrive once, in order, and are acknowledged', async () => {
    const [ann, bob] = await connected('ann-4', 'bob-4')
    const texts = Array.from({ length: 1000 }, (_, index) => `message ${index + 1}`)
    ann.send(person('bob-4'), ...texts)
    const received = await bob.take('message', texts.length)
    expect(received.map(({ text }) => text)).toEqual(texts)
    expect(received.map(({ messageSeq }) => messageSeq)).toEqual(texts.map((_, index) => index + 1))
    const acks = await ann.take('ack', texts.length)
    expect(acks.map(({ clientSeq, messageSeq, reasonCode }) => [clientSeq, messageSeq, reasonCode])).toEqual(texts.map((_, index) => [index + 1, index + 1, ReasonCode.Success]))
    expect(bob.all('message')).toHaveLength(texts.length)
  })

  test('a refused message is acknowledged with its reason and reaches nobody', async () => {
    await engine.channels.create(group('closed'), { subscribers: ['bob-5'] })
    const [ann, bob] = await connected('ann-5', 'bob-5')
    ann.send(group('closed'), 'let me in')
    expect(await ann.next('ack')).toMatchObject({ clientSeq: 1, reasonCode: ReasonCode.SubscriberNotExist })
    ann.send(group('nowhere'), 'anybody?')
    expect(await ann.next('ack')).toMatchObject({ clientSeq: 2, reasonCode: ReasonCode.ChannelNotExist })
    expect(await stored(group('closed'))).toEqual([])

    await engine.channels.subscribers.add(group('closed'), ['ann-5'])
    ann.send(group('closed'), 'thank you')
    expect(await bob.next('message')).toMatchObject({ text: 'thank you', messageSeq: 1 })
  })

  test('modes, mutes and lists are told with their reasons, and hold from the next message on', async () => {
    const key = group('moderated')
    await engine.channels.create({ ...key, mode: 'muted' }, { subscribers: [{ uid: 'boss-9', role: MemberRole.Owner }, 'ann-9', 'bob-9'] })
    const [boss, ann, bob] = await connected('boss-9', 'ann-9', 'bob-9')
    const answer = async (): Promise<number> => {
      ann.send(key, 'may I?')
      return (await ann.next('ack')).reasonCode
    }
    expect(await answer()).toBe(ReasonCode.SendBan)
    boss.send(key, 'quiet, please')
    expect(await bob.next('message')).toMatchObject({ text: 'quiet, please', messageSeq: 1 })
    await engine.channels.setMode(key, 'announcement')
    expect(await answer()).toBe(ReasonCode.NotAllowSend)
    await engine.channels.setMode(key, 'normal')
    await engine.channels.mute(key, 'ann-9', { forMs: 3_600_000 })
    expect(await answer()).toBe(ReasonCode.SendBan)
    await engine.channels.unmute(key, 'ann-9')
    await engine.channels.denylist.add(key, ['ann-9'])
    expect(await answer()).toBe(ReasonCode.InBlacklist)
    await engine.channels.denylist.remove(key, ['ann-9'])
    expect(await answer()).toBe(ReasonCode.Success)
    expect(await bob.next('message')).toMatchObject({ text: 'may I?', messageSeq: 2 })
  })

  test('a command of the host reaches the SDK as a message of the channel, and a banned user is signed out and kept out', async () => {
    await engine.channels.create(group('commands'), { subscribers: ['ann-10'] })
    const [ann] = await connected('ann-10')
    await engine.messages.send({ ...group('commands'), fromUID: 'system', payload: Buffer.from('{"type":1,"content":"reload"}'), syncOnce: true })
    expect(await ann.next('message')).toMatchObject({ text: 'reload', channelID: 'commands', redDot: false })
    expect(await engine.messages.lastSeq(group('commands'))).toBe(0)

    expect(await engine.users.ban('ann-10')).toEqual({ kickedCount: 1 })
    expect(await ann.next('status')).toMatchObject({ status: KICKED, reasonCode: ReasonCode.ConnectKick })
    const again = client()
    await again.connect({ addr, uid: 'ann-10' })
    expect(await again.next('status')).toMatchObject({ status: REFUSED, reasonCode: ReasonCode.Ban })
  })

  test('a kick is told with reason 12, then the socket ends', async () => {
    const [ann] = await connected('ann-6')
    expect(engine.connections.kick({ uid: 'ann-6' })).toEqual({ kickedCount: 1 })
    expect(await ann.next('status')).toMatchObject({ status: KICKED, reasonCode: ReasonCode.ConnectKick })
    expect(await ann.next('status')).toMatchObject({ status: DISCONNECTED })
    expect(engine.connections.list({ uid: 'ann-6' })).toEqual([])
  })

  test('a second sign-in at master level takes the place of the first', async () => {
    const [first] = await connected('master-7')
    const [second] = await connected('master-7')
    expect(await first.next('status')).toMatchObject({ status: KICKED, reasonCode: ReasonCode.ConnectKick })
    await engine.messages.send({ ...person('master-7'), fromUID: 'system', payload: Buffer.from('{"type":1,"content":"for the second"}') })
    expect(await second.next('message')).toMatchObject({ text: 'for the second' })
    expect(first.all('message')).toEqual([])
  })

  // P9
  test('after a lost socket the SDK comes back and what it sent meanwhile is stored once; after a kick it stays away', async () => {
    const [ann, bob, kicked] = await connected('ann-8', 'bob-8', 'kicked-8')
    engine.connections.kick({ uid: 'kicked-8' })
    expect(await kicked.take('status', 2)).toMatchObject([{ status: KICKED }, { status: DISCONNECTED }])
    bob.send(person('ann-8'), 'before')
    expect(await ann.next('message')).toMatchObject({ text: 'before', messageSeq: 1 })

    for (const socket of wss.clients) socket.terminate()
    expect(await ann.next('status')).toMatchObject({ status: DISCONNECTED })
    ann.send(person('bob-8'), 'typed while away')
    // The SDK waits three seconds.
    expect(await ann.next('status')).toMatchObject({ status: CONNECTED })
    expect(await ann.next('ack')).toMatchObject({ clientSeq: 1, messageSeq: 2, reasonCode: ReasonCode.Success })

    expect(await bob.take('status', 2)).toMatchObject([{ status: DISCONNECTED }, { status: CONNECTED }])
    bob.send(person('ann-8'), 'after')
    const later = await ann.next('message')
    expect(later).toMatchObject({ text: 'after', messageSeq: 3 })
    expect(await stored({ channelID: personChannelID('ann-8', 'bob-8'), channelType: ChannelType.Person })).toHaveLength(3)

    // Those who lost their socket after it was kicked are back, so it would be too.
    expect(kicked.all('status')).toHaveLength(3)
    expect(engine.connections.list({ uid: 'kicked-8' })).toEqual([])
  })
})
