/** socket.io 5 over engine.io 4, WebSocket from the start: events with an acknowledgement, as `socket.emit(…, callback)` sends them. */
import { receiverUID } from '../wire.ts'
import type { Client, OpenOptions } from './client.ts'
import { readIndex } from './im-client.ts'
import { Link } from './link.ts'
import { readDigits, writeDigits, type Sender } from './sender.ts'

const DELIVERY = '42["m","'
const OPEN = 0x30 // engine.io: open, then ping, pong, message; socket.io: the digit after it
const PING = 0x32
const PONG = '3'
const EVENT = 0x32
const ACK = 0x33

export async function openSocketIO({ job, payload, role, fail }: OpenOptions): Promise<Client> {
  const link = await Link.open({
    port: job.port, transport: 'ws', path: '/socket.io/?EIO=4&transport=websocket', isText: true, measureUnit: () => 0, fail,
  })
  await new Promise<void>((resolve) => {
    link.onUnit = (bytes, from, to) => {
      if (bytes[from] === OPEN) {
        link.write(link.pack(Buffer.from(`40${JSON.stringify({ uid: role.uid })}`)))
        link.flush()
      } else if (bytes.toString('latin1', from, from + 2) === '40') {
        resolve()
      } else {
        throw new Error(`socket.io answers ${bytes.toString('latin1', from, to)}`)
      }
    }
  })
  return new SocketIOClient(link, role.senderIndex, payload.length)
}

class SocketIOClient implements Client {
  readonly link: Link
  onAck: Client['onAck'] = () => undefined
  onRefusal: Client['onRefusal'] = () => undefined
  onDelivery: Client['onDelivery'] = () => undefined
  readonly #packed: Buffer
  /** of the id of the acknowledgement, and of the number in the payload */
  readonly #idAt: number
  readonly #numberAt: number

  constructor(link: Link, senderIndex: number, payloadBytes: number) {
    this.link = link
    const index = Math.max(0, senderIndex)
    const head = `4200000000["m","${receiverUID(index)}","`
    const payload = `${String(index).padStart(5, '0')}00000000`.padEnd(payloadBytes, 'a')
    const unit = Buffer.from(`${head}${payload}"]`)
    this.#packed = link.pack(unit)
    this.#idAt = link.headBytes(unit.length) + 2
    this.#numberAt = link.headBytes(unit.length) + head.length + 5
    link.onUnit = (bytes, from) => this.#read(bytes, from)
  }

  send(sender: Sender): void {
    const { link } = this
    const at = link.reserve(this.#packed.length)
    link.out.set(this.#packed, at)
    writeDigits(link.out, at + this.#idAt, sender.digits, link.mask)
    writeDigits(link.out, at + this.#numberAt, sender.digits, link.mask)
  }

  #read(bytes: Buffer, from: number): void {
    if (bytes[from] === PING) {
      this.link.write(this.link.pack(Buffer.from(PONG)))
      return
    }
    const type = bytes[from + 1]
    if (type === ACK) {
      this.onAck(readDigits(bytes, from + 2))
    } else if (type === EVENT) {
      const at = from + DELIVERY.length
      this.onDelivery(readIndex(bytes, at), readDigits(bytes, at + 5), 0)
    } else {
      throw new Error(`a socket.io packet of type ${type} is not expected`)
    }
  }
}
