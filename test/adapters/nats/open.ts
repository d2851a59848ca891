/** What the tests of imengine/nats open. */
import type { IMError, PresenceEntry } from 'imengine'
import { ClusterConnection } from '../../../src/adapters/nats/connection.ts'
import { NatsPresence, type NatsPresenceOptions } from '../../../src/adapters/nats/presence.ts'

export const LONG_MS = 99_999_999

let nameCount = 0
export const newName = (): string => `p${++nameCount}`

/** Moves when a test says so; the expiry of nodes is judged by it. */
export class SteppingClock {
  ms = 1_000
  readonly now = (): number => this.ms
}

export function presenceOn(urls: readonly string[], over: Partial<NatsPresenceOptions> = {}): NatsPresence & { readonly reports: IMError[] } {
  const reports: IMError[] = []
  const connection = new ClusterConnection({ servers: urls, clientName: 'test', connectTimeoutMs: 2_000, reconnectPauseMs: 50, pingIntervalMs: 200 })
  const presence = new NatsPresence({
    connection,
    name: newName(),
    replicas: 1,
    presenceStorage: 'memory',
    presenceMaxAgeMs: 3_600_000,
    presenceWriteTimeoutMs: 20_000,
    maxPresenceWrites: 256,
    nowMs: () => performance.now(),
    report: (error) => reports.push(error),
    ...over,
  })
  return Object.assign(presence, { reports })
}

export function entry(uid: string, nodeID: number, connectionID = 'c', over: Partial<PresenceEntry> = {}): PresenceEntry {
  return { uid, nodeID, connectionID, deviceFlag: 0, deviceLevel: 0, ...over }
}
