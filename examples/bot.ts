import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { allowAnyToken, IMEngine } from 'imengine'
import { attachNetServer } from 'imengine/net'
import {
  ChannelType,
  ClientKeyAgreement,
  DeviceFlag,
  encode,
  FrameDecoder,
  FrameType,
  LATEST_VERSION,
  openRecv,
  ReasonCode,
  reasonName,
  sealSend,
  type Frame,
  type PayloadCipher,
  type RecvPacket,
} from 'imengine/protocol'

// #region bot
/** A client in sixty lines: logs in, acknowledges what comes, and answers every person who writes to it. */
export class Bot {
  readonly loggedIn: Promise<void>
  readonly #socket: Socket
  readonly #uid: string
  readonly #answer: (text: string) => string
  readonly #decoder = new FrameDecoder()
  readonly #keys = new ClientKeyAgreement()
  #cipher: PayloadCipher | undefined
  #clientSeq = 0
  #decideLogin: (refusal?: Error) => void = () => {}

  constructor(socket: Socket, { uid, token, answer }: { uid: string; token: string; answer: (text: string) => string }) {
    this.#socket = socket
    this.#uid = uid
    this.#answer = answer
    this.loggedIn = new Promise((resolve, reject) => {
      this.#decideLogin = (refusal) => (refusal === undefined ? resolve() : reject(refusal))
    })
    socket.on('error', (error) => this.#decideLogin(error))
    socket.on('close', () => this.#decideLogin(new Error('the connection has ended')))
    socket.on('data', (chunk: Buffer) => {
      const malformed = this.#decoder.feed(chunk, (frame) => this.#handle(frame))
      if (malformed !== undefined) socket.destroy()
    })
    const clientTimestampMs = BigInt(Date.now())
    const { clientKey } = this.#keys
    const device = { version: LATEST_VERSION, deviceFlag: DeviceFlag.Pc, deviceID: `${uid}-bot` }
    this.#write({ type: FrameType.CONNECT, flags: 0, ...device, uid, token, clientTimestampMs, clientKey })
  }

  #handle(frame: Frame): void {
    if (frame.type === FrameType.RECV) return this.#receive(frame)
    if (frame.type !== FrameType.CONNACK) return
    if (frame.reasonCode !== ReasonCode.Success) return this.#decideLogin(new Error(reasonName(frame.reasonCode)))
    this.#cipher = this.#keys.complete(frame.serverKey, frame.salt)
    this.#decideLogin()
  }

  #receive(recv: RecvPacket): void {
    const { flags, messageID, messageSeq, fromUID, channelType } = recv
    this.#write({ type: FrameType.RECVACK, flags, messageID, messageSeq })
    const payload = openRecv(recv, this.#cipher!)
    if (payload === undefined || channelType !== ChannelType.Person || fromUID === this.#uid) return
    this.#send(fromUID, this.#answer(Buffer.from(payload).toString()), `answer-to-${messageID}`)
  }

  #send(channelID: string, text: string, clientMsgNo: string): void {
    const head = { type: FrameType.SEND, flags: 0, setting: 0, clientSeq: ++this.#clientSeq, clientMsgNo, streamNo: '' } as const
    const target = { channelID, channelType: ChannelType.Person, expireSec: 0, msgKey: '', topic: '' }
    this.#write(sealSend({ ...head, ...target, payload: Buffer.from(text) }, this.#cipher!))
  }

  #write(frame: Frame): void {
    this.#socket.write(encode(frame, LATEST_VERSION))
  }
}
// #endregion

export async function start(wantedPort = 0) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
  await engine.start()
  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo

  // A bot is a client like any other: it could as well run on another machine, or talk to another engine.
  const socket = connect(port, '127.0.0.1')
  const bot = new Bot(socket, { uid: 'echo', token: '', answer: (text) => `you said: ${text}` })
  await bot.loggedIn

  return {
    port,
    close: async (): Promise<void> => {
      socket.destroy()
      server.close()
      await engine.close()
    },
  }
}
