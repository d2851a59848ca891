import { defineConfig } from 'tsup'

export default defineConfig({
  entry: {
    index: 'src/index.ts',
    level: 'src/adapters/level/index.ts',
    redis: 'src/adapters/redis/index.ts',
    http: 'src/adapters/http/index.ts',
    ws: 'src/adapters/ws/index.ts',
    net: 'src/adapters/net/index.ts',
    postgres: 'src/adapters/postgres/index.ts',
    nats: 'src/adapters/nats/index.ts',
    metrics: 'src/adapters/metrics/index.ts',
    protocol: 'src/protocol/index.ts',
    testing: 'src/testing/index.ts',
  },
  format: ['esm', 'cjs'],
  // Drivers are the host's to install.
  external: ['@nats-io/jetstream', '@nats-io/kv', '@nats-io/transport-node', 'classic-level', 'ioredis', 'pg', 'prom-client', 'ws'],
  // Shared chunks, so that IMError and the other classes are one and the same through every entry.
  splitting: true,
  dts: true,
  clean: true,
  sourcemap: true,
  target: 'node20',
  platform: 'node',
})
