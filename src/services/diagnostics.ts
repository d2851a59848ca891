import { channel } from 'node:diagnostics_channel'
import type { Diagnostics } from '../contracts/diagnostics.ts'

/** Channels belong to the process, not to an engine: whoever listens tells engines apart by `nodeID`. */
export function diagnosticsOf(nodeID: number): Diagnostics {
  return {
    nodeID,
    connect: channel('imengine:connect'),
    send: channel('imengine:send'),
    commit: channel('imengine:commit'),
    push: channel('imengine:push'),
  }
}
