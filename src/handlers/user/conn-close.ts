import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { ConnectionView } from '../../contracts/connection-view.ts'
import type { CloseCause, ConnCloseContext, Steps } from '../../contracts/handler.ts'
import type { Presence, PresenceEntry } from '../../contracts/presence.ts'
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
  /** presence could not be told that a connection has gone: it is told with the next heartbeat */
  readonly owe: (entry: PresenceEntry) => void
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

  get presenceEntry(): PresenceEntry {
    const { uid, connectionID, deviceFlag, deviceLevel } = this.conn
    return { uid, nodeID: this.services.nodeID, connectionID, deviceFlag, deviceLevel }
  }

  finish(result: unknown): void {
    if (!(result instanceof IMError)) return
    this.services.report(result)
    if (this.services.presence !== undefined) this.services.owe(this.presenceEntry)
  }
}

function leavePresence(ctx: ConnCloseEvent): Outcome | Promise<Outcome> {
  return ctx.services.presence?.offline(ctx.presenceEntry)
}
