import type { AbortGroup } from '../../contracts/abort-group.ts'
import type { ConnectionPort } from '../../contracts/connection-view.ts'
import { IMError, type IMErrorContext } from '../../errors.ts'
import type { Closing, Refusal } from '../../model/outcome.ts'
import { EngineEvent } from '../engine-event.ts'

export interface SignServices {
  readonly waits: AbortGroup
  readonly report: (error: IMError) => void
}

/** What PING and RECVACK share: signs of life of one connection that are answered with no reason code. */
export abstract class SignEvent extends EngineEvent {
  readonly conn: ConnectionPort
  readonly services: SignServices

  constructor(conn: ConnectionPort, services: SignServices) {
    super()
    this.conn = conn
    this.services = services
  }

  protected get waits(): AbortGroup {
    return this.services.waits
  }

  describe(): IMErrorContext {
    return { uid: this.conn.uid, connectionID: this.conn.connectionID }
  }

  finish(result: undefined | Refusal | Closing | IMError): void {
    if (result instanceof IMError) this.services.report(result)
    else if (result?.kind === 'close') this.conn.end('handler')
  }
}
