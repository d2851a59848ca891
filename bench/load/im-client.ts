/** wkproto 5: SENDs from a template of which only the changing bytes are written anew, RECVs read by their offsets. */
import { randomBytes } from 'node:crypto'
import { ChannelType, ClientKeyAgreement, encode, FrameDecoder, FrameType, openRecv, ReasonCode, type ConnackPacket, type PayloadCipher } from 'imengine/protocol'
import { GROUP_ID, receiverUID, type Transport } from '../wire.ts'
import type { Client, OpenOptions } from './client.ts'
import { Link, measureVarint } from './link.ts'
import { readDigits, writeDigits, type Sender } from './sender.ts'

const VERSION = 5
/** clientMsgNo: as long as the SDKs', a constant and then the number of the message */
const MSG_NO_HEAD_LENGTH = 24
const MSG_KEY_LENGTH = 32
const RECVACK_BYTES = 14
/** One RECV of so many is decoded, and decrypted, in full, and its payload compared. */
const SAMPLE_EVERY = 64

export interface Login {
  readonly port: number
  readonly transport: Transport
  readonly encryption: 'on' | 'off'
  readonly uid: string
  readonly fail: (error: Error) => void
}

export function measureFrame(bytes: Buffer, at: number): number {
  const type = bytes[at]! >> 4
  return type === FrameType.PING || type === FrameType.PONG ? 1 : measureVarint(bytes, at)
}

/** Open a connection and wait for CONNACK. Nothing else may be sent before; what is sent at once behind it is `early`. */
export async function logIn({ port, transport, encryption, uid, fail }: Login): Promise<{ link: Link; cipher: PayloadCipher | undefined; early: Buffer[] }> {
  const link = await Link.open({ port, transport, measureUnit: measureFrame, fail })
  const keys = encryption === 'on' ? new ClientKeyAgreement() : undefined
  const early: Buffer[] = []
  let isIn = false
  const connack = new Promise<ConnackPacket>((resolve) => {
    link.onUnit = (bytes, from, to) => {
      if (isIn) return void early.push(Buffer.from(bytes.subarray(from, to)))
      new FrameDecoder({ version: VERSION }).feed(bytes.subarray(from, to), (frame) => {
        if (frame.type !== FrameType.CONNACK) throw new Error(`a frame of type ${frame.type} came before CONNACK`)
        if (frame.reasonCode !== ReasonCode.Success) throw new Error(`CONNACK with reason ${frame.reasonCode}`)
        isIn = true
        resolve(frame)
      })
    }
  })
  link.write(link.pack(connectFrame(uid, keys?.clientKey ?? '')))
  link.flush()
  const { serverKey, salt } = await connack
  return { link, cipher: keys?.complete(serverKey, salt), early }
}

export function connectFrame(uid: string, clientKey: string): Uint8Array {
  const packet = { type: FrameType.CONNECT, flags: 0, version: VERSION, deviceFlag: 0, deviceID: uid, uid, token: '', clientTimestampMs: 0n, clientKey } as const
  return encode(packet, VERSION)
}

export async function openIM({ job, payload, role, fail }: OpenOptions): Promise<Client> {
  const { port, transport, encryption } = job
  const { link, cipher, early } = await logIn({ port, transport, encryption, uid: role.uid, fail })
  const client = new IMClient({ link, cipher, payload, isGroup: job.topology === 'group' })
  if (early.length > 0) client.readLater(early, fail)
  return client
}

class IMClient implements Client {
  readonly link: Link
  onAck: Client['onAck'] = () => undefined
  onRefusal: Client['onRefusal'] = () => undefined
  onDelivery: Client['onDelivery'] = () => undefined
  readonly #cipher: PayloadCipher | undefined
  readonly #payload: Buffer
  readonly #isGroup: boolean
  readonly #recvack: Buffer
  readonly #ackHeadBytes: number
  readonly #template: SendTemplate
  readonly #decoder = new FrameDecoder({ version: VERSION })
  #receivedCount = 0

  constructor(parts: { readonly link: Link; readonly cipher: PayloadCipher | undefined; readonly payload: Buffer; readonly isGroup: boolean }) {
    const { link, cipher, payload, isGroup } = parts
    this.link = link
    this.#cipher = cipher
    this.#payload = payload
    this.#isGroup = isGroup
    this.#recvack = link.pack(encode({ type: FrameType.RECVACK, flags: 0, messageID: '0', messageSeq: 0 }, VERSION))
    this.#ackHeadBytes = link.headBytes(RECVACK_BYTES)
    this.#template = new SendTemplate({ link, cipher, payload, isGroup })
    link.onUnit = (bytes, from, to) => this.#read(bytes, from, to)
  }

  /** Units that came with CONNACK, before anybody could listen; and behind them what comes in the meantime. */
  readLater(units: Buffer[], fail: (error: Error) => void): void {
    const { link } = this
    link.onUnit = (bytes, from, to) => void units.push(Buffer.from(bytes.subarray(from, to)))
    setImmediate(() => {
      link.onUnit = (bytes, from, to) => this.#read(bytes, from, to)
      try {
        for (const unit of units) this.#read(unit, 0, unit.length)
        link.flush()
      } catch (error) {
        fail(error as Error)
      }
    })
  }

  send(sender: Sender, target: number): void {
    this.#template.write(sender.digits, sender.nextNumber, target)
  }

  #read(bytes: Buffer, from: number, to: number): void {
    const type = bytes[from]! >> 4
    if (type === FrameType.RECV) this.#readRecv(bytes, from, to)
    else if (type === FrameType.SENDACK) this.#readSendack(bytes, from)
    else throw new Error(`a frame of type ${type} is not expected`)
  }

  #readSendack(bytes: Buffer, from: number): void {
    // messageID at 2, clientSeq at 10, messageSeq at 14, reasonCode at 18
    const reasonCode = bytes[from + 18]!
    const number = readU32(bytes, from + 10)
    if (reasonCode === ReasonCode.Success) this.onAck(number)
    else if (reasonCode === ReasonCode.RateLimit) this.onRefusal(number)
    else throw new Error(`SENDACK with reason ${reasonCode}`)
  }

  #readRecv(bytes: Buffer, from: number, to: number): void {
    let at = from + 2
    while (bytes[at - 1]! >= 0x80) at++
    at += 1 // setting
    at += 2 + readU16(bytes, at) // msgKey
    const senderIndex = readIndex(bytes, at + 3) // fromUID: a letter and five digits
    at += 2 + readU16(bytes, at)
    at += 2 + readU16(bytes, at) + 1 + 4 // channelID, channelType, expire
    at += 2 + readU16(bytes, at) // clientMsgNo: its last eight characters are the number
    const number = readDigits(bytes, at - 8)
    const seq = readU32(bytes, at + 8)
    const { link } = this
    const { mask } = link
    const ackAt = link.reserve(this.#recvack.length)
    link.out.set(this.#recvack, ackAt)
    const idAt = ackAt + this.#ackHeadBytes + 2
    // messageID and messageSeq stand next to each other in both frames
    for (let index = 0; index < 12; index++) link.out[idAt + index] = bytes[at + index]! ^ mask
    if (this.#receivedCount++ % SAMPLE_EVERY === 0) this.#compare(bytes.subarray(from, to))
    this.onDelivery(senderIndex, number, seq)
  }

  #compare(unit: Buffer): void {
    this.#decoder.feed(unit, (frame) => {
      if (frame.type !== FrameType.RECV) throw new Error(`a frame of type ${frame.type} instead of RECV`)
      const payload = this.#cipher === undefined ? frame.payload : openRecv(frame, this.#cipher)
      if (payload === undefined || !this.#payload.equals(payload)) throw new Error('a RECV does not hold what was sent')
      if (this.#isGroup && frame.channelID !== GROUP_ID) throw new Error(`a RECV in ${frame.channelID}`)
    })
  }
}

/** A SEND that is made once. What is signed changes with every message, so that an encrypted one is signed anew each time. */
class SendTemplate {
  readonly #link: Link
  readonly #cipher: PayloadCipher | undefined
  readonly #packed: Buffer
  readonly #seqAt: number
  readonly #digitsAt: number
  readonly #channelAt: number
  readonly #msgKeyAt: number
  readonly #isGroup: boolean
  readonly #targets: (Buffer | undefined)[] = []
  /** clientSeq, clientMsgNo, channelID, channelType, payload: what msgKey is made from (wkproto 10) */
  readonly #signed: Buffer
  readonly #signedDigitsAt = 8 + MSG_NO_HEAD_LENGTH
  readonly #signedChannelAt = 8 + MSG_NO_HEAD_LENGTH + 8

  constructor(parts: { readonly link: Link; readonly cipher: PayloadCipher | undefined; readonly payload: Buffer; readonly isGroup: boolean }) {
    const { link, cipher, isGroup } = parts
    this.#link = link
    this.#cipher = cipher
    this.#isGroup = isGroup
    const payload = cipher === undefined ? parts.payload : cipher.sealPayload(parts.payload)
    const channelID = isGroup ? GROUP_ID : receiverUID(0)
    const channelType = isGroup ? ChannelType.Group : ChannelType.Person
    const clientMsgNo = randomBytes(MSG_NO_HEAD_LENGTH / 2).toString('hex') + '0'.repeat(8)
    const msgKey = cipher === undefined ? '' : '0'.repeat(MSG_KEY_LENGTH)
    const frame = encode(
      { type: FrameType.SEND, flags: 0, setting: 0, clientSeq: 0, clientMsgNo, streamNo: '', channelID, channelType, expireSec: 0, msgKey, topic: '', payload },
      VERSION,
    )
    this.#packed = link.pack(frame)
    const bodyAt = link.headBytes(frame.length) + (frame[1]! < 0x80 ? 2 : frame[2]! < 0x80 ? 3 : 4)
    this.#seqAt = bodyAt + 1
    this.#digitsAt = this.#seqAt + 4 + 2 + MSG_NO_HEAD_LENGTH
    this.#channelAt = this.#digitsAt + 8 + 2
    this.#msgKeyAt = this.#channelAt + channelID.length + 1 + 4 + 2
    this.#signed = Buffer.concat([Buffer.from(`00000000${clientMsgNo}${channelID}${channelType}`), payload])
  }

  write(digits: Buffer, clientSeq: number, target: number): void {
    const link = this.#link
    const { mask } = link
    const at = link.reserve(this.#packed.length)
    const { out } = link
    out.set(this.#packed, at)
    const seqAt = at + this.#seqAt
    out[seqAt] = (clientSeq >>> 24) ^ mask
    out[seqAt + 1] = ((clientSeq >>> 16) & 0xff) ^ mask
    out[seqAt + 2] = ((clientSeq >>> 8) & 0xff) ^ mask
    out[seqAt + 3] = (clientSeq & 0xff) ^ mask
    writeDigits(out, at + this.#digitsAt, digits, mask)
    if (!this.#isGroup) {
      const channelID = (this.#targets[target] ??= Buffer.from(receiverUID(target)))
      for (let index = 0; index < channelID.length; index++) out[at + this.#channelAt + index] = channelID[index]! ^ mask
      if (this.#cipher !== undefined) this.#signed.set(channelID, this.#signedChannelAt)
    }
    if (this.#cipher === undefined) return
    writeDigits(this.#signed, 0, digits, 0)
    writeDigits(this.#signed, this.#signedDigitsAt, digits, 0)
    const msgKey = this.#cipher.sign(this.#signed)
    const keyAt = at + this.#msgKeyAt
    for (let index = 0; index < MSG_KEY_LENGTH; index++) out[keyAt + index] = msgKey.charCodeAt(index) ^ mask
  }
}

function readU16(bytes: Buffer, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!
}

function readU32(bytes: Buffer, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
}

/** Five digits, as in the uids of the load. */
export function readIndex(bytes: Buffer, at: number): number {
  let index = 0
  for (let digit = at; digit < at + 5; digit++) index = index * 10 + bytes[digit]! - 0x30
  return index
}
