import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const entry = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^imengine$/, replacement: entry('src/index.ts') },
      { find: /^imengine\/level$/, replacement: entry('src/adapters/level/index.ts') },
      { find: /^imengine\/redis$/, replacement: entry('src/adapters/redis/index.ts') },
      { find: /^imengine\/http$/, replacement: entry('src/adapters/http/index.ts') },
      { find: /^imengine\/ws$/, replacement: entry('src/adapters/ws/index.ts') },
      { find: /^imengine\/net$/, replacement: entry('src/adapters/net/index.ts') },
      { find: /^imengine\/postgres$/, replacement: entry('src/adapters/postgres/index.ts') },
      { find: /^imengine\/nats$/, replacement: entry('src/adapters/nats/index.ts') },
      { find: /^imengine\/metrics$/, replacement: entry('src/adapters/metrics/index.ts') },
      { find: /^imengine\/protocol$/, replacement: entry('src/protocol/index.ts') },
      { find: /^imengine\/testing$/, replacement: entry('src/testing/index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    // vitest leaves a core free by default, which on a small machine halves the speed.
    maxWorkers: '100%',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // How long something may take is never what is tested: only that it comes.
    expect: { poll: { timeout: 20_000 } },
    // Only with `npm run coverage`.
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      // AssemblyScript, which runs as what it is compiled to; and those bytes.
      exclude: ['src/protocol/wasm/**', 'src/protocol/seal-module-bytes.ts'],
      reporter: ['text-summary', 'json-summary'],
      reportsDirectory: 'coverage',
      reportOnFailure: true,
      thresholds: { lines: 95, branches: 90 },
    },
  },
})
