/** `imengine/redis`: presence, pushes and kicks between nodes that share a Redis. */
export { redisCluster, type RedisCluster } from './cluster.ts'
export type { RedisClusterOptions } from './options.ts'
