import { describe, expect, it } from 'vitest'
import { FrameType } from '../../src/model/frames.ts'
import { Setting } from '../../src/model/message.ts'
import { ReasonCode } from '../../src/model/reason-code.ts'
import { connectTestClient, socketPair, TestClient } from '../../src/testing/index.ts'
import { ScriptedServer } from './scripted-server.ts'

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

async function login(options: Partial<Parameters<typeof connectTestClient>[1]> = {}) {
  const server = new ScriptedServer()
  return { server, ...(await connectTestClient(server, { uid: 'ann', ...options })) }
}

const HELLO = { channelID: 'bob', channelType: 1, payload: 'hello' }

describe('TestClient', () => {
  for (const version of [1, 2, 3, 4, 5]) {
    for (const plaintext of [false, true]) {
      it(`talks version ${version}, ${plaintext ? 'plain' : 'encrypted'}`, async () => {
        const { server, client, connack } = await login({ version, plaintext })
        expect(connack).toMatchObject({ type: FrameType.CONNACK, reasonCode: ReasonCode.Success })
        expect(client.cipher === undefined).toBe(plaintext)
        expect(await client.send(HELLO)).toMatchObject({ clientSeq: 1, messageSeq: 101 })
        expect(server.texts).toEqual(['hello'])
        server.recv('hi there')
        expect(await client.nextRecv()).toMatchObject({ fromUID: 'bob', messageID: '77', text: 'hi there' })
        expect(await client.ping()).toEqual({ type: FrameType.PONG })
      })
    }
  }

  it('works where delivery is synchronous, with chunks that arrive within its own calls', async () => {
    const { server, client } = await login({ delivery: 'sync' })
    await client.send(HELLO)
    server.recv('one')
    server.recv('two')
    expect(client.messages.map((message) => message.text)).toEqual(['one', 'two'])
    expect(server.frames.filter((frame) => frame.type === FrameType.RECVACK).length).toBe(2)
  })

  it('says who it is as it was told to', async () => {
    const { server } = await login({ token: 't', deviceID: 'd1', deviceFlag: 2, version: 4, remoteAddress: '10.0.0.9' })
    expect(server.frames[0]).toMatchObject({ uid: 'ann', token: 't', deviceID: 'd1', deviceFlag: 2, version: 4 })
    expect(server.remoteAddress).toBe('10.0.0.9')
  })

  it('sends every field of a message, and the bit that makes room for a topic', async () => {
    const { server, client } = await login()
    await client.send({ ...HELLO, clientMsgNo: 'mine', flags: 3, setting: Setting.Receipt, expireSec: 9, topic: 'news' })
    expect(server.frames.at(-1)).toMatchObject({
      channelID: 'bob',
      channelType: 1,
      clientMsgNo: 'mine',
      flags: 3,
      setting: Setting.Receipt | Setting.Topic,
      expireSec: 9,
      topic: 'news',
    })
    await client.send(HELLO)
    expect(server.frames.at(-1)).toMatchObject({ clientMsgNo: 'ann-2', setting: 0, topic: '' })
  })

  it('gives every send its own SENDACK, in whatever order they come, and shows one that nobody waits for', async () => {
    const { server, client } = await login()
    server.answersSends = false
    const [first, second] = [client.send(HELLO), client.send(HELLO)]
    await settle()
    server.sendack(2, 22)
    server.sendack(1, 11)
    server.sendack(1, 12)
    expect([(await first).messageSeq, (await second).messageSeq]).toEqual([11, 22])
    expect((await client.next(FrameType.SENDACK)).messageSeq).toBe(12)
    expect(client.received.filter((frame) => frame.type === FrameType.SENDACK).length).toBe(3)
  })

  it('gives every frame to one wait, first come, first served', async () => {
    const { server, client } = await login()
    const [first, second] = [client.nextRecv(), client.nextRecv()]
    for (const text of ['a', 'b', 'c']) server.recv(text)
    expect([(await first).text, (await second).text, (await client.nextRecv()).text]).toEqual(['a', 'b', 'c'])
  })

  it('acknowledges what it reads, with the flags of the RECV, unless it is told not to', async () => {
    const { server, client } = await login()
    server.recv('a')
    await settle()
    expect(server.frames.at(-1)).toEqual({ type: FrameType.RECVACK, flags: 2, messageID: '77', messageSeq: 1 })

    const silent = await login({ autoAck: false })
    silent.server.recv('a')
    const message = await silent.client.nextRecv()
    await settle()
    expect(silent.server.frames.some((frame) => frame.type === FrameType.RECVACK)).toBe(false)
    silent.client.ack(message)
    await settle()
    expect(silent.server.frames.at(-1)?.type).toBe(FrameType.RECVACK)
    expect(client.messages.length).toBe(1)
  })

  it('resolves connect with a refusal; connectTestClient throws it', async () => {
    const server = new ScriptedServer()
    server.connectReason = ReasonCode.AuthFail
    const pair = socketPair()
    pair.attach(server.accept(pair.server))
    const connack = await new TestClient(pair.client).connect({ uid: 'ann' })
    expect(connack.reasonCode).toBe(ReasonCode.AuthFail)
    await expect(connectTestClient(server, { uid: 'ann' })).rejects.toThrow('CONNECT of ann was refused: AuthFail')
  })

  it('ends every wait when the connection ends, gives out what came before, and waits no more', async () => {
    const { server, client } = await login()
    server.answersSends = false
    const waits = [client.send(HELLO), client.next(FrameType.DISCONNECT), client.ping()]
    server.recv('last')
    server.close()
    await client.closed
    expect(client.isClosed).toBe(true)
    expect((await Promise.allSettled(waits)).map((outcome) => outcome.status)).toEqual(['rejected', 'rejected', 'rejected'])
    expect((await client.nextRecv()).text).toBe('last')
    await expect(client.nextRecv()).rejects.toThrow('the connection of ann has ended')
  })

  it('does not take a RECV that was made with another key', async () => {
    const { server, client } = await login()
    server.recv('a', { msgKey: '0'.repeat(32) })
    await expect(client.nextRecv()).rejects.toThrow("RECV 77 is not made with this connection's key")
    expect(client.messages).toEqual([])
  })

  it('does not take bytes that are not the protocol', async () => {
    const { server, client } = await login()
    server.sendBytes(Buffer.from('f000', 'hex'))
    await expect(client.next(FrameType.DISCONNECT)).rejects.toThrow('the server sent bytes that are not wkproto: unknown-type')
  })

  it('sends any bytes, and leaves', async () => {
    const { server, client, pair } = await login()
    client.sendRaw(Buffer.from('70', 'hex'))
    await client.next(FrameType.PONG)
    expect(server.frames.at(-1)).toEqual({ type: FrameType.PING })
    client.end()
    await client.closed
    expect(pair.client.socketEnd).toEqual({ by: 'client' })
  })

  it('keeps what it received though the transport reuses its memory', async () => {
    const { server, client, pair } = await login({ plaintext: true })
    server.recv('hello')
    const message = await client.nextRecv()
    for (const chunk of pair.sentChunks) chunk.fill(0)
    expect(Buffer.from(message.payload).toString()).toBe('hello')
  })
})
