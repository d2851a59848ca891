/** MQTT 3.1.1 with QoS 1 both ways: PUBLISH and its PUBACK from the broker, PUBLISH from the broker and a PUBACK to it. */
import { receiverUID } from '../wire.ts'
import type { Client, OpenOptions } from './client.ts'
import { Link, measureVarint } from './link.ts'
import { readDigits, writeDigits, type Sender } from './sender.ts'

const CONNACK = 2
const PUBLISH = 3
const PUBACK = 4
const SUBACK = 9
/** Packet ids go round in as many numbers, from 1; far more than are ever under way. */
const ID_COUNT = 0x4000

export async function openMQTT({ job, payload, role, fail }: OpenOptions): Promise<Client> {
  const link = await Link.open({ port: job.port, transport: job.transport, measureUnit: measureVarint, fail })
  const answered = (type: number): Promise<void> =>
    new Promise((resolve) => {
      link.onUnit = (bytes, from) => {
        if (bytes[from]! >> 4 !== type) throw new Error(`an MQTT packet of type ${bytes[from]! >> 4} instead of ${type}`)
        if (type === CONNACK && bytes[from + 3] !== 0) throw new Error(`the broker refuses with ${bytes[from + 3]}`)
        if (type === SUBACK && bytes[from + 4] !== 1) throw new Error('the broker grants no QoS 1')
        resolve()
      }
    })
  const isSender = role.senderIndex !== -1
  link.write(packet(0x10, [text('MQTT'), Buffer.from([4, 2, 0, 0]), text(role.uid)])) // clean session, no keep-alive
  link.flush()
  await answered(CONNACK)
  if (!isSender) {
    link.write(packet(0x82, [Buffer.from([0, 1]), text(role.uid), Buffer.from([1])]))
    link.flush()
    await answered(SUBACK)
  }
  return new MQTTClient(link, role.senderIndex, payload)
}

class MQTTClient implements Client {
  readonly link: Link
  onAck: Client['onAck'] = () => undefined
  onRefusal: Client['onRefusal'] = () => undefined
  onDelivery: Client['onDelivery'] = () => undefined
  readonly #packet: Buffer
  readonly #payloadAt: number
  #newest = 0

  constructor(link: Link, senderIndex: number, filler: Buffer) {
    this.link = link
    const payload = Buffer.from(filler)
    payload.writeUInt32BE(Math.max(0, senderIndex), 0)
    const isSender = senderIndex !== -1
    this.#packet = packet(0x32, [text(receiverUID(isSender ? senderIndex : 0)), Buffer.alloc(2), payload])
    this.#payloadAt = this.#packet.length - payload.length
    link.onUnit = (bytes, from) => this.#read(bytes, from)
  }

  /** Topics are fixed: sender i publishes to what receiver i has subscribed to. */
  send(sender: Sender): void {
    const { link } = this
    const at = link.reserve(this.#packet.length)
    link.out.set(this.#packet, at)
    this.#newest = sender.nextNumber
    link.out.writeUInt16BE((sender.nextNumber & (ID_COUNT - 1)) + 1, at + this.#payloadAt - 2)
    writeDigits(link.out, at + this.#payloadAt + 4, sender.digits, 0)
  }

  #read(bytes: Buffer, from: number): void {
    const type = bytes[from]! >> 4
    if (type === PUBACK) {
      const id = bytes.readUInt16BE(from + 2) - 1
      this.onAck(this.#newest - ((this.#newest - id) & (ID_COUNT - 1)))
    } else if (type === PUBLISH) {
      if ((bytes[from]! & 0x06) !== 0x02) throw new Error('the broker delivers with another QoS')
      let at = from + 2
      while (bytes[at - 1]! >= 0x80) at++
      at += 2 + bytes.readUInt16BE(at)
      const { link } = this
      const ackAt = link.reserve(4)
      link.out[ackAt] = PUBACK << 4
      link.out[ackAt + 1] = 2
      link.out[ackAt + 2] = bytes[at]!
      link.out[ackAt + 3] = bytes[at + 1]!
      this.onDelivery(bytes.readUInt32BE(at + 2), readDigits(bytes, at + 6), 0)
    } else {
      throw new Error(`an MQTT packet of type ${type} is not expected`)
    }
  }
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

function packet(first: number, parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const length: number[] = []
  for (let rest = body.length; length.length === 0 || rest > 0; rest >>>= 7) length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
  return Buffer.concat([Buffer.from([first, ...length]), body])
}
