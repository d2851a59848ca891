/**
 * After a run of the tests that failed: those files in which nothing has failed but that a test took longer than it may, or that a
 * server did not start, are run once more, each alone. Tests of real servers, processes and browsers wait for them on a machine that
 * is not theirs. Whatever else has failed, has failed: what was lost, doubled, out of order or did not come is never tried again. Says
 * what it does; exits with 0 only when nothing is left that has failed. `node .ci/again.mjs artifacts/tests.json`
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { relative } from 'node:path'

// In the report of vitest a test that took too long has only the place where its message was to be.
const TOO_LONG = /STACK_TRACE_ERROR|(Test|Hook) timed out in|the nats-servers are not ready|it did not start/

const { testResults } = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const failed = testResults.filter(({ status }) => status === 'failed')
let isGreen = failed.length > 0
for (const { name, assertionResults } of failed) {
  const file = relative(process.cwd(), name)
  const messages = assertionResults.filter(({ status }) => status === 'failed').map(({ failureMessages }) => failureMessages.join('\n'))
  // A file that fails without a failed test could not be loaded.
  if (messages.length === 0 || !messages.every((message) => TOO_LONG.test(message))) {
    console.log(`ci: ${file} has failed`)
    isGreen = false
    continue
  }
  const again = spawnSync('npx', ['vitest', 'run', file], { stdio: 'inherit' })
  console.log(`ci: ${file} ${again.status === 0 ? 'PASSED ONLY WHEN IT WAS RUN AGAIN, alone: it had taken too long' : 'has failed twice'}`)
  if (again.status !== 0) isGreen = false
}
process.exit(isGreen ? 0 : 1)
