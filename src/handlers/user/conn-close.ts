import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { ConnectionView } from '../../contracts/connection-view.ts'
import type { CloseCause, ConnCloseContext, Steps } from '../../contracts/handler.ts'
import type { Presence } from '../../contracts/presence.ts'
import { IMError, type IMErrorContext } from '../../errors.ts'
import type { Outcome } from '../../model/outcome.ts'
import { EngineEvent } from '../engine-event.ts'

/** EventConnClose: an open connection has ended. It is out of the registry already. */
export const connCloseSteps: Steps<ConnCloseEvent> = { leavePresence }

export interface ConnCloseServices {
  readonly presence: Presence | undefined
  readonly nodeID: number
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
}

export class ConnCloseEvent extends EngineEvent implements ConnCloseContext {
  readonly event = 'EventConnClose'
  readonly runsAtTheEnd = true
  readonly conn: ConnectionView
  readonly cause: CloseCause
  readonly services: ConnCloseServices

  constructor(conn: ConnectionView, cause: CloseCause, services: ConnCloseServices) {
    super()
    this.conn = conn
    this.cause = cause
    this.services = services
  }

  protected get waits(): AbortGroup {
    return this.services.waits
  }

  describe(): IMErrorContext {
    return { uid: this.conn.uid, connectionID: this.conn.connectionID }
  }

  finish(result: unknown): void {
    if (result instanceof IMError) this.services.report(result)
  }
}

function leavePresence(ctx: ConnCloseEvent): Outcome | Promise<Outcome> {
  const { uid, connectionID, deviceFlag, deviceLevel } = ctx.conn
  return ctx.services.presence?.offline({ uid, nodeID: ctx.services.nodeID, connectionID, deviceFlag, deviceLevel })
}
