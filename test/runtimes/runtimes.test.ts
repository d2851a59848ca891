import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

// What `npm run runtimes` does with the others as well; it needs `npm run build` first, as `npm test` does.
test('every flow works with the built package on this Node, and the process ends by itself', () => {
  const flows = fileURLToPath(new URL('flows.mjs', import.meta.url))
  const { status, stdout } = spawnSync(process.execPath, [flows], { encoding: 'utf8', timeout: 60_000 })
  const told = stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line) as { works?: boolean; isLast?: boolean })
  expect(told.filter(({ works, isLast }) => works !== true && isLast !== true)).toEqual([])
  expect(told.at(-1)).toMatchObject({ isLast: true })
  expect(status).toBe(0)
}, 90_000)
