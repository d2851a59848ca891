import type { ConnectionPort } from '../../contracts/connection-view.ts'
import type { Steps, RecvAckContext } from '../../contracts/handler.ts'
import type { Message } from '../../model/message.ts'
import type { Outcome } from '../../model/outcome.ts'
import { SignEvent, type SignServices } from './sign-event.ts'

export interface RecvAckServices extends SignServices {
  /** `uid` has got the message */
  readonly delivered: (uid: string, message: Message) => void
}

/** EventRecvAck: one message has reached one connection, and so one of its user's devices. */
export const recvAckSteps: Steps<RecvAckEvent> = { settleRecv, advanceCursor }

export class RecvAckEvent extends SignEvent implements RecvAckContext {
  readonly event = 'EventRecvAck'
  readonly message: Message
  readonly delivered: RecvAckServices['delivered']

  constructor(conn: ConnectionPort, message: Message, services: RecvAckServices) {
    super(conn, services)
    this.message = message
    this.delivered = services.delivered
  }
}

/** It is not sent again on this connection. */
function settleRecv(ctx: RecvAckEvent): Outcome {
  ctx.conn.settleRecv(ctx.message.messageID)
}

/** It is not replayed at the user's next login. */
function advanceCursor(ctx: RecvAckEvent): Outcome {
  ctx.delivered(ctx.conn.uid, ctx.message)
}
