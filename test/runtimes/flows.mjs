/**
 * What an app does with the built package, for whatever runtime runs this file: each flow prints one line of JSON, and the process must
 * end by itself. `npm run runtimes` runs it with all of them.
 */
import { deepStrictEqual as equal, ok } from 'node:assert'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer as createHTTPServer } from 'node:http'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { allowAnyToken, ChannelType, IMEngine, ReasonCode, staticTokenVerifier } from '../../dist/index.js'

const TEAM = { channelID: 'team', channelType: ChannelType.Group }

async function started(options = {}) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), ...options })
  await engine.start()
  await engine.channels.create(TEAM, { subscribers: ['ann', 'bob'] })
  return engine
}

/** One says it, the other gets it, over whatever connects them. */
async function chat(ann, bob) {
  equal((await ann.connect({ uid: 'ann', token: 'a', plaintext: false })).reasonCode, ReasonCode.Success)
  equal((await bob.connect({ uid: 'bob', token: 'b', plaintext: false })).reasonCode, ReasonCode.Success)
  const coming = bob.nextRecv()
  const sendack = await ann.send({ ...TEAM, payload: 'hello', clientMsgNo: 'no-1' })
  equal([sendack.reasonCode, sendack.messageSeq], [ReasonCode.Success, 1])
  const { text, fromUID, messageSeq } = await coming
  equal([text, fromUID, messageSeq], ['hello', 'ann', 1])
}

const flows = {
  async 'protocol: a frame is read as it was written'() {
    const { encode, FrameDecoder, FrameType } = await import('../../dist/protocol.js')
    const read = []
    equal(new FrameDecoder().feed(encode({ type: FrameType.PING, flags: 0 }, 5), (frame) => read.push(frame.type)), undefined)
    equal(read, [FrameType.PING])
  },

  async 'in process: key agreement, encrypted payloads, delivery'() {
    const { connectTestClient } = await import('../../dist/testing.js')
    const engine = await started()
    const [ann, bob] = await Promise.all(['ann', 'bob'].map((uid) => connectTestClient(engine, { uid })))
    const coming = bob.client.nextRecv()
    equal((await ann.client.send({ ...TEAM, payload: 'hello', clientMsgNo: 'no-1' })).reasonCode, ReasonCode.Success)
    equal((await coming).text, 'hello')
    await engine.close()
  },

  async 'TCP: node:net on both sides'() {
    const { attachNetServer } = await import('../../dist/net.js')
    const { TestClient } = await import('../../dist/testing.js')
    const engine = await started({ tokenVerifier: staticTokenVerifier({ ann: 'a', bob: 'b' }) })
    const server = createServer()
    attachNetServer(engine, server)
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const sockets = []
    const client = () => {
      const socket = connect(server.address().port, '127.0.0.1')
      sockets.push(socket)
      return new TestClient({ write: (bytes) => socket.write(bytes), onData: (listener) => socket.on('data', listener) })
    }
    await chat(client(), client())
    for (const socket of sockets) socket.destroy()
    server.close()
    await engine.close()
  },

  async 'WebSocket: ws on the side of the engine, the WebSocket of the runtime or of ws on the other'() {
    const { WebSocketServer, WebSocket: WebSocketOfWS } = await import('ws')
    const { attachWebSocketServer } = await import('../../dist/ws.js')
    const { TestClient } = await import('../../dist/testing.js')
    const engine = await started()
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    attachWebSocketServer(engine, server)
    await once(server, 'listening')
    const WebSocketHere = globalThis.WebSocket ?? WebSocketOfWS
    const sockets = []
    const client = async () => {
      const socket = new WebSocketHere(`ws://127.0.0.1:${server.address().port}`)
      socket.binaryType = 'arraybuffer'
      sockets.push(socket)
      await new Promise((resolve, reject) => {
        socket.addEventListener('open', resolve)
        socket.addEventListener('error', () => reject(new Error('the WebSocket does not open')))
      })
      return new TestClient({ write: (bytes) => socket.send(bytes), onData: (listener) => socket.addEventListener('message', ({ data }) => listener(new Uint8Array(data))) })
    }
    await chat(await client(), await client())
    await engine.close()
    for (const socket of sockets) socket.close()
    server.close()
  },

  async 'level: what was stored is there for the next engine, and the folder is locked meanwhile'() {
    const { levelStorage } = await import('../../dist/level.js')
    const path = await mkdtemp(join(tmpdir(), 'imengine-runtime-'))
    const first = await started({ storage: levelStorage({ path }) })
    const { messageSeq } = await first.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('kept') })
    let code
    await new IMEngine({ tokenVerifier: allowAnyToken(), storage: levelStorage({ path }) }).start().catch((error) => (code = error.code))
    equal(code, 'IM_STORE_LOCKED')
    await first.close()
    const second = new IMEngine({ tokenVerifier: allowAnyToken(), storage: levelStorage({ path }) })
    await second.start()
    const [message] = await second.messages.get({ ...TEAM, seqs: [messageSeq] })
    equal(Buffer.from(message.payload).toString(), 'kept')
    await second.close()
    await rm(path, { recursive: true, force: true })
  },

  async 'webhook: signed, told and acknowledged over HTTP'() {
    const { httpWebhook, verifyWebhookSignature } = await import('../../dist/http.js')
    const secret = 'whsec_cmVhZCBtZSBmcm9tIHlvdXIgY29uZmlndXJhdGlvbg=='
    let told
    const heard = new Promise((resolve) => (told = resolve))
    const server = createHTTPServer((request, response) => {
      const chunks = []
      request.on('data', (chunk) => chunks.push(chunk))
      request.on('end', () => {
        const body = Buffer.concat(chunks)
        const isRight = verifyWebhookSignature({ secret, headers: request.headers, body })
        response.writeHead(isRight ? 200 : 401, { 'content-type': 'application/json' }).end('{}')
        if (request.url.includes('msg.notify')) told({ isRight, text: Buffer.from(JSON.parse(body)[0].payload, 'base64').toString() })
      })
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const engine = await started({ webhook: httpWebhook({ url: `http://127.0.0.1:${server.address().port}/`, secret, events: ['msg.notify'] }) })
    await engine.messages.send({ ...TEAM, fromUID: 'ann', payload: Buffer.from('tell') })
    equal(await heard, { isRight: true, text: 'tell' })
    await engine.close({ drainMs: 2_000 })
    server.closeAllConnections?.()
    server.close()
  },

  async 'close: what is under way is answered before the connection ends'() {
    const { connectTestClient } = await import('../../dist/testing.js')
    const engine = await started()
    const { client } = await connectTestClient(engine, { uid: 'ann' })
    const answers = Array.from({ length: 20 }, (_, n) => client.send({ ...TEAM, payload: `${n}`, clientMsgNo: `no-${n}` }))
    const closing = engine.close({ drainMs: 5_000 })
    const codes = (await Promise.allSettled(answers)).map(({ value }) => value?.reasonCode)
    await closing
    ok(codes.every((code) => code === undefined || code === ReasonCode.Success))
  },
}

const LIMIT_MS = 20_000
for (const [name, flow] of Object.entries(flows)) {
  let timer
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`not over after ${LIMIT_MS} ms`)), LIMIT_MS)))
  try {
    await Promise.race([flow(), late])
    console.log(JSON.stringify({ name, works: true }))
  } catch (error) {
    console.log(JSON.stringify({ name, works: false, why: `${error?.code ?? ''} ${error?.message ?? error}`.trim().split('\n')[0] }))
  }
  clearTimeout(timer)
}
console.log(JSON.stringify({ name: 'the process ends by itself', isLast: true }))
