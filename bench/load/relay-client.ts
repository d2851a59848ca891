/** The raw relay: messages and acknowledgements of fixed length that name nothing but their place. */
import { RELAY_ACK_BYTES, RELAY_HEAD_BYTES, RELAY_MESSAGE_BYTES } from '../wire.ts'
import type { Client, OpenOptions } from './client.ts'
import { Link } from './link.ts'
import { FIRST_NUMBER, readDigits, writeDigits, type Sender } from './sender.ts'

export async function openRelay({ job, role, fail }: OpenOptions): Promise<Client> {
  const unitBytes = role.senderIndex === -1 ? RELAY_MESSAGE_BYTES : RELAY_ACK_BYTES
  const link = await Link.open({ port: job.port, transport: job.transport, measureUnit: () => unitBytes, fail })
  return new RelayClient(link, role.senderIndex)
}

class RelayClient implements Client {
  readonly link: Link
  onAck: Client['onAck'] = () => undefined
  onRefusal: Client['onRefusal'] = () => undefined
  onDelivery: Client['onDelivery'] = () => undefined
  readonly #packed: Buffer
  readonly #headBytes: number
  /** acknowledgements come in the order of what they acknowledge */
  #ackedNumber = FIRST_NUMBER

  constructor(link: Link, senderIndex: number) {
    this.link = link
    const message = Buffer.alloc(RELAY_MESSAGE_BYTES, 0x61)
    message.writeUInt32BE(Math.max(0, senderIndex), 0)
    this.#packed = link.pack(message)
    this.#headBytes = link.headBytes(RELAY_MESSAGE_BYTES)
    link.onUnit = (bytes, from, to) => {
      if (to - from === RELAY_MESSAGE_BYTES) this.onDelivery(bytes.readUInt32BE(from), readDigits(bytes, from + RELAY_HEAD_BYTES - 8), 0)
      else this.onAck(this.#ackedNumber++)
    }
  }

  send(sender: Sender): void {
    const { link } = this
    const at = link.reserve(this.#packed.length)
    link.out.set(this.#packed, at)
    writeDigits(link.out, at + this.#headBytes + RELAY_HEAD_BYTES - 8, sender.digits, link.mask)
  }
}
