import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { allowAnyToken, IMEngine } from 'imengine'

it('makes no room ahead of time for what its caches may hold: an engine that does nothing takes less than 1.5 MB', () => {
  new IMEngine({ tokenVerifier: allowAnyToken() }) // what all share is there now
  const before = usedBytes()
  const engines = Array.from({ length: 4 }, () => new IMEngine({ tokenVerifier: allowAnyToken() }))
  expect((usedBytes() - before) / engines.length).toBeLessThan(1_500_000)
})

/** Memory in use after a collection, so that only what is still reachable counts. */
function usedBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
