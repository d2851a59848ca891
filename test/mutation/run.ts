/**
 * `npm run mutate -- [--count N] [--seed S] [--folder protocol|events|handlers] [--minutes N]`, or
 * `npm run mutate -- --at src/FILE.ts:LINE` for all mutants of one line: are the tests able to fail? Changes one small thing in
 * the source at a time and runs those tests that reach it, until one fails.
 *
 * The changes are built into the source as vitest loads it, all at once, and a number says which is on: files on disk stay as
 * they are. What each test reaches is found in a run without any change, and is kept in `artifacts/mutation` until the source
 * or that test file changes. `src/protocol/wasm` is compiled ahead and is left out, as are the bytes that come of it.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createVitest, type Reporter, type TestSpecification, type Vitest } from 'vitest/node'
import { seededRandom } from '../../src/testing/seeded-random.ts'
import { instrument, type Mutant } from './mutants.ts'

/** What a worker is told. */
export interface RunRequest {
  /** undefined: none is on, and what is reached is written down */
  readonly mutantID: number | undefined
  /** how often all mutants of a test file may be reached, together */
  readonly hitLimit: number
  /** by test file: the names of the tests that are to run; not there: all */
  readonly testsOf: Readonly<Record<string, readonly string[]>> | undefined
  readonly folder: string
}

interface Reached {
  readonly testFile: string
  readonly contentHash: string
  readonly durationMs: number
  /** [name of the test, mutants]; the name is '' for what runs as files load */
  readonly reached: readonly [string, readonly number[]][]
  readonly hits: readonly [number, number][]
}

type Fate = 'killed' | 'survived' | 'timed out' | 'not reached'

const FOLDERS = ['protocol', 'events', 'handlers']
/** Without those that start processes, servers or browsers: what is changed is not seen there, or would take too long. */
const TESTS = [
  /^(protocol|events|connection|plugins)\/[^/]+\.test\.ts$/,
  /^acceptance\/m(05|07|08|14|23)-/,
  /^flows\/(channel-types|close|connect|conversations|distribute|fan-out|offline|on-send|revisions)\.test\.ts$/,
  /^faults\/(handler-policies|hanging-adapters|host-misbehaves|storage-failures)\.test\.ts$/,
]
const TEST_TIMEOUT_MS = 10_000

const root = fileURLToPath(new URL('../..', import.meta.url))
const kept = join(root, 'artifacts', 'mutation')
const filesIn = (folder: string): string[] => readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).sort()
const sha1 = (text: string): string => createHash('sha1').update(text).digest('hex')

const print = (line: string): void => void process.stdout.write(`${line}\n`)

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '120' },
    seed: { type: 'string', default: '1' },
    folder: { type: 'string' },
    minutes: { type: 'string', default: '600' },
    at: { type: 'string' },
  },
})
const folders = values.folder === undefined ? FOLDERS : FOLDERS.filter((folder) => folder === values.folder)
if (folders.length === 0) throw new TypeError(`--folder: expected ${FOLDERS.join(', ')}, got ${values.folder}`)

// ---- the source, with all mutants in it

const texts = new Map<string, string>()
const mutants: Mutant[] = []
const sourceHash = createHash('sha1')
for (const name of filesIn('src')) {
  if (!name.endsWith('.ts')) continue
  const path = `src/${name}`
  const source = readFileSync(join(root, path), 'utf8')
  sourceHash.update(source)
  if (!FOLDERS.includes(path.split('/')[1]!) || path.includes('/wasm/') || path.endsWith('seal-module-bytes.ts')) continue
  const made = instrument(path, source, mutants.length)
  texts.set(join(root, path), made.text)
  mutants.push(...made.mutants)
}
const sourceID = sourceHash.digest('hex')

// ---- vitest, in this process, with one worker

/** Of the run under way. */
let failures: string[] = []
const durations = new Map<string, number>()
const order = new Map<string, number>()

const reporter: Reporter = {
  onTestCaseResult(test) {
    for (const error of test.result().errors ?? []) failures.push(`${test.name}: ${error.message}`)
  },
  onTestModuleEnd(module) {
    durations.set(module.moduleId, module.diagnostic().duration)
    for (const error of module.errors()) failures.push(`${module.relativeModuleId}: ${error.message}`)
  },
}

async function open(bail: number): Promise<Vitest> {
  const rank = (spec: TestSpecification): number => order.get(spec.moduleId) ?? 0
  class InOrder {
    shard(specs: TestSpecification[]): TestSpecification[] {
      return specs
    }
    sort(specs: TestSpecification[]): TestSpecification[] {
      return [...specs].sort((a, b) => rank(a) - rank(b))
    }
  }
  const vitest = await createVitest(
    'test',
    {
      root,
      watch: false,
      bail,
      isolate: false,
      maxWorkers: 1,
      testTimeout: TEST_TIMEOUT_MS,
      hookTimeout: TEST_TIMEOUT_MS,
      reporters: [reporter],
      setupFiles: [join(root, 'test/mutation/setup.ts')],
      sequence: { sequencer: InOrder },
    },
    {
      plugins: [
        {
          name: 'mutants',
          enforce: 'pre',
          transform: (_code, id) => (texts.has(id) ? { code: texts.get(id)!, map: null } : undefined),
        },
      ],
    },
  )
  await vitest.standalone()
  return vitest
}

async function runTests(
  vitest: Vitest,
  testFiles: readonly string[],
  request: RunRequest,
  limitMs: number,
): Promise<{ readonly failed: string[]; readonly hung: boolean }> {
  failures = []
  let hung = false
  // A loop without end ends only with its process.
  const watchdog = setTimeout(() => {
    hung = true
    process.kill(Number(readFileSync(join(request.folder, 'pid'), 'utf8')), 'SIGKILL')
  }, limitMs)
  vitest.getRootProject().provide('mutation' as never, JSON.stringify(request) as never)
  const specs = testFiles.map((testFile) => vitest.getRootProject().createSpecification(testFile))
  const { unhandledErrors } = await vitest.runTestSpecifications(specs)
  clearTimeout(watchdog)
  return { failed: [...failures, ...unhandledErrors.map((error) => (error as { readonly message: string }).message)], hung }
}

// ---- what each test reaches

async function whatTestsReach(): Promise<Reached[]> {
  const file = join(kept, `reached-${sourceID}.json`)
  let known: Reached[] = []
  try {
    known = JSON.parse(readFileSync(file, 'utf8')) as Reached[]
  } catch {
    // the first run with this source
  }
  const testFiles = filesIn('test').filter((name) => TESTS.some((pattern) => pattern.test(name)))
  const current = new Map(testFiles.map((name) => [join(root, 'test', name), sha1(readFileSync(join(root, 'test', name), 'utf8'))]))
  const valid = known.filter(({ testFile, contentHash }) => current.get(testFile) === contentHash)
  const missing = [...current.keys()].reverse().filter((testFile) => !valid.some((reached) => reached.testFile === testFile))
  if (missing.length === 0) return valid

  print(`What do ${missing.length} test files reach? Running them without a change.`)
  const folder = join(kept, 'reached')
  mkdirSync(folder, { recursive: true })
  const vitest = await open(0)
  // A worker for each file: what is left of one does not count for the next.
  for (const testFile of missing) {
    const limitMs = 8 * TEST_TIMEOUT_MS
    const { failed } = await runTests(vitest, [testFile], { mutantID: undefined, hitLimit: Infinity, testsOf: undefined, folder }, limitMs)
    if (failed.length > 0) {
      print(`${testFile} is left out, since it fails without a change: ${failed.join('; ')}`)
      continue
    }
    const record = JSON.parse(readFileSync(join(folder, 'reached.json'), 'utf8')) as Pick<Reached, 'reached' | 'hits'>
    valid.push({ ...record, testFile, contentHash: current.get(testFile)!, durationMs: durations.get(testFile) ?? 0 })
    writeFileSync(file, JSON.stringify(valid))
  }
  await vitest.close()
  return valid
}

const reached = await whatTestsReach()
// Slow files last: most mutants are found by a fast one.
reached.sort((a, b) => a.durationMs - b.durationMs)

const idsByPath = new Map<string, Set<number>>()
for (const { id, path } of mutants) idsByPath.set(path, (idsByPath.get(path) ?? new Set()).add(id))
const loadTime = new Set(reached.flatMap((file) => file.reached.filter(([name]) => name === '').flatMap(([, ids]) => ids)))

/** The tests that reach a mutant, by file; of one that is reached as the files load, all tests that reach its file. */
function testsFor(mutant: Mutant): Record<string, string[]> {
  const wanted = loadTime.has(mutant.id) ? idsByPath.get(mutant.path)! : new Set([mutant.id])
  const tests: Record<string, string[]> = {}
  for (const file of reached) {
    const names = file.reached.filter(([name, ids]) => name !== '' && ids.some((id) => wanted.has(id))).map(([name]) => name)
    if (names.length > 0) tests[file.testFile] = names
  }
  return tests
}

// ---- the mutants

function sample(): Mutant[] {
  if (values.at !== undefined) return mutants.filter(({ path, line }) => `${path}:${line}` === values.at)
  const perFolder = Math.ceil(Number(values.count) / folders.length)
  const chosen = folders.map((folder) => {
    const rest = mutants.filter(({ path }) => path.startsWith(`src/${folder}/`))
    const picked: Mutant[] = []
    // By folder, so that a larger sample begins as the smaller one does.
    const random = seededRandom(Number(values.seed))
    while (picked.length < perFolder && rest.length > 0) {
      picked.push(...rest.splice(random.below(rest.length), 1))
    }
    return picked
  })
  // One of each folder in turn, so that a run that is ended early has seen all of them.
  return Array.from({ length: perFolder }, (_, index) => chosen.flatMap((picked) => picked.slice(index, index + 1))).flat()
}

async function fateOf(vitest: Vitest, mutant: Mutant): Promise<{ readonly fate: Fate; readonly by?: string | undefined }> {
  const testsOf = testsFor(mutant)
  const files = reached.filter(({ testFile }) => testsOf[testFile] !== undefined)
  if (files.length === 0) return { fate: 'not reached' }
  // The tests beside it first: they do not load a whole engine.
  const isBeside = ({ testFile }: Reached): boolean => testFile.includes(`/test/${mutant.path.split('/')[1]}/`)
  files.forEach((file, index) => order.set(file.testFile, isBeside(file) ? index - files.length : index))
  const usualHits = Math.max(...files.map(({ hits }) => hits.reduce((sum, [, count]) => sum + count, 0)))
  const usualMs = files.reduce((sum, { durationMs }) => sum + durationMs, 0)
  const folder = join(kept, 'worker')
  const request = { mutantID: mutant.id, hitLimit: 1_000_000 + 2 * usualHits, testsOf, folder }
  const limitMs = 2 * TEST_TIMEOUT_MS + 2 * usualMs
  const { failed, hung } = await runTests(vitest, files.map(({ testFile }) => testFile), request, limitMs)
  if (hung) return { fate: 'timed out', by: 'the time limit of the run' }
  if (failed.length === 0) return { fate: 'survived' }
  return { fate: failed.every((failure) => failure.includes('timed out') || failure.includes('[vitest-pool]')) ? 'timed out' : 'killed', by: failed[0]!.split('\n')[0] }
}

const vitest = await open(1)
const results: { readonly mutant: Mutant; readonly fate: Fate }[] = []
const chosen = sample()
print(`${chosen.length} of ${mutants.length} mutants, seed ${values.seed}`)
const endMs = Date.now() + Number(values.minutes) * 60_000
for (const mutant of chosen) {
  if (Date.now() > endMs) break
  const { fate, by } = await fateOf(vitest, mutant)
  results.push({ mutant, fate })
  print(`${results.length} ${fate}: ${mutant.path}:${mutant.line} ${mutant.change}${by === undefined ? '' : `\n    ${by.slice(0, 150)}`}`)
}
await vitest.close()

print('\nfolder     mutants  killed  timed out  survived  not reached  score')
for (const folder of folders) {
  const here = results.filter(({ mutant }) => mutant.path.startsWith(`src/${folder}/`))
  if (here.length === 0) continue
  const count = (fate: Fate): number => here.filter((result) => result.fate === fate).length
  const score = (100 * (count('killed') + count('timed out'))) / here.length
  const columns = [[here.length, 7], [count('killed'), 6], [count('timed out'), 9], [count('survived'), 8], [count('not reached'), 11]] as const
  print(`${folder.padEnd(9)}  ${columns.map(([value, width]) => String(value).padStart(width)).join('  ')}  ${score.toFixed(1)} %`)
}
for (const { mutant, fate } of results) {
  if (fate === 'survived' || fate === 'not reached') print(`${fate}: ${mutant.path}:${mutant.line} ${mutant.change}`)
}
// Failing tests are what this is about; vitest counts them as its own failure.
process.exitCode = 0
