/** `imengine/nats`: what joins the nodes of a cluster, over NATS with JetStream. */
export type { LogProblem, NatsLogOptions } from './log-options.ts'
export type { NatsReplicator, NatsReplicatorStatus, PartitionStatus } from './replicator.ts'
export { natsCluster, type NatsCluster, type NatsClusterOptions } from './cluster.ts'
