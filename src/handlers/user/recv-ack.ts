import type { ConnectionPort } from '../../contracts/connection-view.ts'
import type { Steps, RecvAckContext } from '../../contracts/handler.ts'
import type { Message } from '../../model/message.ts'
import type { Outcome } from '../../model/outcome.ts'
import { SignEvent, type SignServices } from './sign-event.ts'

/** EventRecvAck: one message has reached one connection. */
export const recvAckSteps: Steps<RecvAckEvent> = { settleRecv }

export class RecvAckEvent extends SignEvent implements RecvAckContext {
  readonly event = 'EventRecvAck'
  readonly message: Message

  constructor(conn: ConnectionPort, message: Message, services: SignServices) {
    super(conn, services)
    this.message = message
  }
}

/** It is not sent again on this connection. */
function settleRecv(ctx: RecvAckEvent): Outcome {
  ctx.conn.settleRecv(ctx.message.messageID)
}
