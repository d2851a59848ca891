import type { Job } from '../wire.ts'
import { openIM } from './im-client.ts'
import type { Link } from './link.ts'
import { openMQTT } from './mqtt-client.ts'
import { openRelay } from './relay-client.ts'
import type { Sender } from './sender.ts'
import { openSocketIO } from './socket-io-client.ts'

/** Who a connection is. */
export interface Role {
  readonly uid: string
  /** -1 for a connection that only receives */
  readonly senderIndex: number
  /** which node of a cluster it is connected to, modulo how many there are */
  readonly node: number
}

/** One connection of the load, whatever it speaks. */
export interface Client {
  readonly link: Link
  /** Put the sender's next message for `receiverUID(target)`, or for the group, into `link.out`. */
  send(sender: Sender, target: number): void
  /** a message of this connection's sender was accepted, or turned away for its rate */
  onAck: (number: number) => void
  onRefusal: (number: number) => void
  /** @param seq  the place in the channel, or 0 where the server does not number */
  onDelivery: (senderIndex: number, number: number, seq: number) => void
}

export interface OpenOptions {
  readonly job: Job
  readonly payload: Buffer
  readonly role: Role
  readonly fail: (error: Error) => void
}

export function openClient(options: OpenOptions): Promise<Client> {
  switch (options.job.kind) {
    case 'engine':
    case 'codec':
      return openIM(options)
    case 'relay':
      return openRelay(options)
    case 'socket.io':
      return openSocketIO(options)
    case 'aedes':
    case 'mosquitto':
      return openMQTT(options)
  }
}
