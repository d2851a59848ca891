/**
 * After a run of the tests that failed: those files in which nothing but a time limit has passed are run once more, each alone. Tests
 * of real servers, processes and browsers wait for them on a machine that is not theirs. Whatever else has failed, has failed: what
 * was lost, doubled or out of order is never tried again. Says what it does; exits with 0 only when nothing is left that has failed.
 * `node .ci/again.mjs artifacts/tests.json`
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { relative } from 'node:path'

// In the report of vitest a test that took too long has only the place where its message was to be, and a poll its name in the stack.
const TIME_LIMIT = /STACK_TRACE_ERROR|__VITEST_POLL_CHAIN__|timed out|(within|after) \d+ ?ms|did not start/i

const { testResults } = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const failed = testResults.filter(({ status }) => status === 'failed')
let isGreen = failed.length > 0
for (const { name, assertionResults } of failed) {
  const file = relative(process.cwd(), name)
  const messages = assertionResults.filter(({ status }) => status === 'failed').map(({ failureMessages }) => failureMessages.join('\n'))
  // A file that fails without a failed test could not be loaded.
  if (messages.length === 0 || !messages.every((message) => TIME_LIMIT.test(message))) {
    console.log(`ci: ${file} has failed`)
    isGreen = false
    continue
  }
  const again = spawnSync('npx', ['vitest', 'run', file], { stdio: 'inherit' })
  console.log(`ci: ${file} ${again.status === 0 ? 'PASSED ONLY WHEN IT WAS RUN AGAIN, alone: a time limit had passed' : 'has failed twice'}`)
  if (again.status !== 0) isGreen = false
}
process.exit(isGreen ? 0 : 1)
