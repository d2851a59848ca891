import { randomBytes } from 'node:crypto'
import type { Socket, SocketAcceptor, SocketEvents } from '../../src/contracts/socket.ts'
import { FrameType, type Frame, type RecvPacket } from '../../src/model/frames.ts'
import { ReasonCode } from '../../src/model/reason-code.ts'
import {
  acceptKeyAgreement,
  encode,
  FrameDecoder,
  negotiateVersion,
  openSend,
  sealRecv,
  shapeConnack,
  type PayloadCipher,
} from '../../src/protocol/index.ts'

/** A server for one client that answers as the protocol asks and otherwise does what the test says. */
export class ScriptedServer implements SocketAcceptor {
  readonly frames: Frame[] = []
  /** plaintext of every SEND */
  readonly texts: (string | undefined)[] = []
  connectReason: number = ReasonCode.Success
  remoteAddress: string | undefined
  answersSends = true
  #socket: Socket | undefined
  #version = 5
  #cipher: PayloadCipher | undefined

  accept(socket: Socket, info: { remoteAddress?: string } = {}): SocketEvents {
    this.#socket = socket
    this.remoteAddress = info.remoteAddress
    const decoder = new FrameDecoder()
    return {
      receive: (chunk) => void decoder.feed(Uint8Array.from(chunk), (frame) => this.#handle(frame, decoder)),
      drained: () => {},
      closed: () => {},
    }
  }

  send(frame: Frame): void {
    this.sendBytes(encode(frame, this.#version))
  }

  sendBytes(bytes: Uint8Array): void {
    this.#socket?.send(bytes)
  }

  sendack(clientSeq: number, messageSeq: number): void {
    this.send({ type: FrameType.SENDACK, flags: 0, messageID: '9', clientSeq, messageSeq, reasonCode: ReasonCode.Success })
  }

  recv(text: string, over: Partial<RecvPacket> = {}): void {
    const packet: RecvPacket = {
      type: FrameType.RECV,
      flags: 2,
      setting: 0,
      msgKey: '',
      fromUID: 'bob',
      channelID: 'bob',
      channelType: 1,
      expireSec: 0,
      clientMsgNo: 'c',
      streamFlag: 0,
      streamNo: '',
      streamID: '0',
      messageID: '77',
      messageSeq: 1,
      timestampSec: 1_700_000_000,
      topic: '',
      payload: Buffer.from(text),
    }
    this.send({ ...(this.#cipher === undefined ? packet : sealRecv(packet, this.#cipher)), ...over })
  }

  close(): void {
    this.#socket?.close()
  }

  #handle(frame: Frame, decoder: FrameDecoder): void {
    this.frames.push(frame)
    if (frame.type === FrameType.PING) this.send({ type: FrameType.PONG })
    if (frame.type === FrameType.SEND) {
      const payload = this.#cipher === undefined ? frame.payload : openSend(frame, this.#cipher)
      this.texts.push(payload && Buffer.from(payload).toString())
      if (this.answersSends) this.sendack(frame.clientSeq, 100 + frame.clientSeq)
    }
    if (frame.type !== FrameType.CONNECT) return
    this.#version = decoder.version = negotiateVersion(frame.version)
    const keys = frame.clientKey === '' ? undefined : acceptKeyAgreement(frame.clientKey, randomBytes)
    const isRefused = this.connectReason !== ReasonCode.Success
    this.send(
      shapeConnack({
        connectVersion: frame.version,
        reasonCode: this.connectReason,
        timeDiffMs: 0n,
        nodeID: '1',
        ...(keys !== undefined && !isRefused && { serverKey: keys.serverKey, salt: keys.salt }),
      }),
    )
    this.#cipher = keys?.cipher
  }
}
