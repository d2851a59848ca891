/**
 * `npm run bench` runs everything but what takes long; `npm run bench -- NAME` one of them, with options of its own.
 *
 * What is measured is the package as its users get it: `dist` is built anew when it is older than `src`, the files of this
 * folder are compiled into `artifacts/bench/js`, and all measuring processes are plain Node, where `imengine` means `dist`.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const COMMON = ['runs', 'seconds', 'warm-up', 'transport', 'encryption', 'storage', 'peers']

/** By name: the options each takes, which is what it is given of those of `npm run bench -- --…`. */
const benchmarks: Readonly<Record<string, { readonly options: readonly string[]; readonly takesLong?: boolean }>> = {
  'one-to-one': { options: COMMON },
  'fan-out': { options: COMMON },
  'connect-storm': { options: ['runs', 'transport', 'encryption'] },
  'idle-memory': { options: ['runs', 'transport', 'encryption'] },
  'open-loop': { options: COMMON },
  'many-channels': { options: COMMON },
  'hot-channel': { options: COMMON },
  cluster: { options: ['runs', 'seconds', 'warm-up', 'topologies', 'window', 'rates', 'partitions', 'kill', 'node-flags'], takesLong: true },
  'cluster-machine': { options: ['runs', 'seconds', 'warm-up', 'topologies', 'window', 'rates', 'partitions'], takesLong: true },
  steps: { options: ['seconds', 'warm-up', 'transport', 'encryption', 'storage'] },
  micro: { options: ['runs'] },
  storage: { options: ['runs'] },
  'large-store': { options: [], takesLong: true },
  soak: { options: [], takesLong: true },
  check: { options: [], takesLong: true },
}
const PROCESSES = ['server-process', 'load-process', 'idle-memory-process', 'machine-process']

const root = fileURLToPath(new URL('..', import.meta.url))
const compiled = join(root, 'artifacts', 'bench', 'js')

const [first, ...rest] = process.argv.slice(2)
const name = first === undefined || first.startsWith('--') ? undefined : first
if (name !== undefined && !Object.hasOwn(benchmarks, name)) {
  console.error(`There is no benchmark "${name}". There are: ${Object.keys(benchmarks).join(', ')}.`)
  process.exit(1)
}
buildPackage()
await compile()
if (name !== undefined) {
  process.exitCode = start(name, rest)
} else {
  const given = first === undefined ? [] : [first, ...rest]
  for (const [each, { options, takesLong }] of Object.entries(benchmarks)) {
    if (takesLong === true) continue
    console.log(`\n## ${each}\n`)
    // The others go on: one that fails is told at its place, and at the end by the exit code.
    const status = start(each, knownOf(given, options))
    if (status !== 0) process.exitCode = status
  }
}

/** Of `--name value` pairs, those that this benchmark knows. */
function knownOf(args: readonly string[], options: readonly string[]): string[] {
  const known: string[] = []
  for (let index = 0; index < args.length; index++) {
    const [option, value] = args[index]!.slice(2).split('=')
    const pair = value === undefined ? [args[index]!, args[++index] ?? ''] : [args[index]!]
    if (options.includes(option!)) known.push(...pair)
  }
  return known
}

function start(each: string, args: readonly string[]): number {
  return spawnSync(process.execPath, [join(compiled, `${each}.js`), ...args], { cwd: root, stdio: 'inherit' }).status ?? 1
}

function buildPackage(): void {
  const built = join(root, 'dist', 'index.js')
  if (existsSync(built) && statSync(built).mtimeMs >= newestUnder(join(root, 'src'))) return
  console.error('bench: dist is older than src, npm run build')
  const { status } = spawnSync('npm', ['run', 'build'], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'], shell: process.platform === 'win32' })
  if (status !== 0) process.exit(1)
}

function newestUnder(folder: string): number {
  const times = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((path) => statSync(join(folder, path)))
  return Math.max(...times.filter((entry) => entry.isFile()).map(({ mtimeMs }) => mtimeMs))
}

async function compile(): Promise<void> {
  rmSync(compiled, { recursive: true, force: true })
  await build({
    entryPoints: [...Object.keys(benchmarks), ...PROCESSES].map((each) => join(root, 'bench', `${each}.ts`)),
    outdir: compiled,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    // Without the paths of tsconfig.json, by which `imengine` would be the sources.
    tsconfigRaw: '{}',
    logLevel: 'warning',
  })
}
