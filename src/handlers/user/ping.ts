import type { Steps, PingContext } from '../../contracts/handler.ts'
import { FrameType, LATEST_VERSION } from '../../model/frames.ts'
import type { Outcome } from '../../model/outcome.ts'
import { encode } from '../../protocol/encode.ts'
import { SignEvent } from './sign-event.ts'

/** EventPing: the client asks whether we live. */
export const pingSteps: Steps<PingEvent> = { sendPong }

export class PingEvent extends SignEvent implements PingContext {
  readonly event = 'EventPing'
}

/** one byte, the same in every version */
const PONG = encode({ type: FrameType.PONG }, LATEST_VERSION)

function sendPong(ctx: PingEvent): Outcome {
  ctx.conn.send(PONG)
}
