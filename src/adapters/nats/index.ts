/** `imengine/nats`: what joins the nodes of a cluster, over NATS with JetStream. */
export { natsCluster, type NatsCluster, type NatsClusterOptions } from './cluster.ts'
