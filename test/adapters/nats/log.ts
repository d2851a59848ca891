import { randomUUID } from 'node:crypto'
import { ClusterConnection } from '../../../src/adapters/nats/connection.ts'
import type { NatsLogOptions } from '../../../src/adapters/nats/log-options.ts'
import { NatsReplicator } from '../../../src/adapters/nats/replicator.ts'

/** A name that no other log on the servers has. */
export const logName = (): string => `t${randomUUID().slice(0, 8)}`

export function connectionTo(servers: readonly string[], over: Partial<ClusterConnection['options']> = {}): ClusterConnection {
  return new ClusterConnection({
    servers,
    clientName: 'imengine test',
    connectTimeoutMs: 2_000,
    reconnectPauseMs: 50,
    pingIntervalMs: 1_000,
    ...over,
  })
}

export function replicatorOn(servers: readonly string[], options: NatsLogOptions): NatsReplicator {
  return new NatsReplicator(connectionTo(servers), options)
}
