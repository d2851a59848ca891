/**
 * `npm run runtimes`: the flows of `flows.mjs` on every runtime, each fetched by npx, as a table. With names only on those:
 * `npm run runtimes -- node@24 bun`. Ends with 1 when a flow fails.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const flows = fileURLToPath(new URL('flows.mjs', import.meta.url))
const LIMIT_MS = 300_000 // the first time it is fetched

const runtimes = ['node@20', 'node@22', 'node@24', 'bun', 'deno']
const commands = { node: ['node'], bun: ['bun', 'run'], deno: ['deno', 'run', '-A'] }
const wanted = process.argv.length > 2 ? process.argv.slice(2) : runtimes

const results = wanted.map((runtime) => {
  const [command, ...args] = commands[runtime.split('@')[0]] ?? []
  if (command === undefined) throw new TypeError(`${runtime}: there are ${runtimes.join(', ')}`)
  const npx = (...rest) => spawnSync('npx', ['--yes', '-p', runtime, command, ...rest], { encoding: 'utf8', timeout: LIMIT_MS, stdio: ['ignore', 'pipe', 'inherit'] })
  const version = /\d+\.\d+\.\d+/.exec(npx('--version').stdout ?? '')?.[0] ?? 'not there'
  const { stdout, status } = npx(...args, flows)
  const told = (stdout ?? '').split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line))
  const ended = { name: 'the process ends by itself', works: status === 0 && told.at(-1)?.isLast === true }
  return { title: `${command} ${version}`, told: [...told.filter(({ isLast }) => isLast !== true), ended] }
})

const names = [...new Set(results.flatMap(({ told }) => told.map(({ name }) => name)))]
console.log(`| | ${results.map(({ title }) => title).join(' | ')} |`)
console.log(`| --- |${' --- |'.repeat(results.length)}`)
for (const name of names) {
  const cells = results.map(({ told }) => told.find((each) => each.name === name))
  console.log(`| ${name} | ${cells.map((cell) => (cell === undefined ? 'not reached' : cell.works ? 'works' : (cell.why ?? 'fails'))).join(' | ')} |`)
}
if (results.some(({ told }) => told.length < 8 || told.some(({ works }) => !works))) process.exitCode = 1
