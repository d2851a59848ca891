/** One run: a server process, a load process, and the server's CPU time over exactly the span that counts. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { loadavg } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { FromLoad, FromServer, IdleJob, Job, LoadTask, Result, Sample, ServerSpec, StormJob, StormResult, ToServer } from './wire.ts'

/** What one run has come to. */
export interface Run<R> {
  readonly result: R
  readonly serverCPUMs: number
  readonly spanMs: number
  readonly before: Sample
  readonly after: Sample
  /** of the whole machine, over the minute before */
  readonly loadAverage: number
}

/** The server's CPU time for one message, delivery or whatever there were so many of a second: microseconds. */
export function cpuMicros({ serverCPUMs, spanMs }: Run<unknown>, perSecond: number): number {
  return ((serverCPUMs / spanMs) * 1e6) / perSecond
}

/** @param nodeOptions  for the server's process */
export const runTraffic = (server: ServerSpec, job: Omit<Job, 'port' | 'kind' | 'transport' | 'encryption'>, nodeOptions: readonly string[] = []): Promise<Run<Result>> =>
  run(server, (port) => ({ task: 'traffic', job: { ...job, port, kind: server.kind, transport: server.transport, encryption: server.encryption } }), false, nodeOptions)

export const runStorm = (server: ServerSpec, job: Omit<StormJob, 'port' | 'transport' | 'encryption'>): Promise<Run<StormResult>> =>
  run(server, (port) => ({ task: 'storm', job: { ...job, port, transport: server.transport, encryption: server.encryption } }))

/** @param server  'bare' serves sockets that nobody logs in on */
export const runIdle = (server: ServerSpec | 'bare', job: Omit<IdleJob, 'port' | 'logsIn'>): Promise<Run<undefined>> =>
  run(server === 'bare' ? { kind: 'bare', transport: job.transport } : server, (port) => ({ task: 'idle', job: { ...job, port, logsIn: server !== 'bare' } }), true)

/** @throws when either process ends early: what it has to say is on stderr */
async function run<R>(server: unknown, taskFor: (port: number) => LoadTask, collectGarbage = false, nodeOptions: readonly string[] = []): Promise<Run<R>> {
  const [loadAverage] = loadavg() as [number]
  const serving = new Child<FromServer, ToServer>('server-process.js', server, nodeOptions)
  let loading: Child<FromLoad, 'done'> | undefined
  const sample = async (): Promise<Sample> => {
    serving.send({ type: 'sample', collectGarbage })
    return serving.next('sample')
  }
  try {
    const { port } = await serving.next('listening')
    // Before the load starts, because a collection of garbage takes its time.
    let before = await sample()
    loading = new Child('load-process.js', taskFor(port))
    await loading.next('begin')
    const fromMs = performance.now()
    if (!collectGarbage) before = await sample()
    await loading.next('end')
    const spanMs = performance.now() - fromMs
    const after = await sample()
    const { result } = await loading.next('result')
    return { result: result as R, serverCPUMs: after.cpuMs - before.cpuMs, spanMs, before, after, loadAverage }
  } finally {
    await loading?.end('done')
    await serving.end({ type: 'close' })
  }
}

const ENDS_WITHIN_MS = 20_000

export class Child<From extends { readonly type: string }, To> {
  readonly #process: ChildProcess
  readonly #name: string
  readonly #arrived: From[] = []
  readonly #exited: Promise<unknown>
  #hasExited = false
  #wake: () => void = () => undefined

  constructor(file: string, argument: unknown, nodeOptions: readonly string[] = []) {
    this.#name = file
    this.#process = fork(fileURLToPath(new URL(file, import.meta.url)), [JSON.stringify(argument)], { execArgv: ['--expose-gc', ...nodeOptions] })
    this.#process.on('message', (message) => {
      this.#arrived.push(message as From)
      this.#wake()
    })
    this.#exited = once(this.#process, 'exit').then(() => {
      this.#hasExited = true
      this.#wake()
    })
  }

  /** The next message of a type. */
  async next<T extends From['type']>(type: T): Promise<Extract<From, { type: T }>> {
    for (;;) {
      const index = this.#arrived.findIndex((message) => message.type === type)
      if (index !== -1) return this.#arrived.splice(index, 1)[0] as Extract<From, { type: T }>
      if (this.#hasExited) throw new Error(`${this.#name} has ended early`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** The same, for somebody who waits beside a `next`; undefined once `isOver`, or when the process has ended. */
  async nextUnless<T extends From['type']>(type: T, isOver: () => boolean): Promise<Extract<From, { type: T }> | undefined> {
    for (;;) {
      const index = this.#arrived.findIndex((message) => message.type === type)
      if (index !== -1) return this.#arrived.splice(index, 1)[0] as Extract<From, { type: T }>
      if (isOver() || this.#hasExited) return undefined
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  send(message: To): void {
    this.#process.send(message as object)
  }

  async end(message: To): Promise<void> {
    if (this.#hasExited) return
    const late = setTimeout(() => this.#process.kill('SIGKILL'), ENDS_WITHIN_MS)
    this.#process.send(message as object, () => undefined)
    await this.#exited
    clearTimeout(late)
  }
}

/**
 * Runs of each row, one of every row in a round, so that a slow minute of the machine does not fall on one of them alone.
 * A row with a run that fails gets no more, and does not count: it is told on stderr, and the process ends with an error.
 * @returns the rows without a failure, which are the ones to report
 */
export async function interleave<Row extends { readonly name: string; readonly runs: unknown[] }>(rows: readonly Row[], runCount: number, action: (row: Row) => Promise<Row['runs'][number]>): Promise<Row[]> {
  const failed = new Set<Row>()
  for (let round = 1; round <= runCount; round++) {
    for (const row of rows) {
      if (failed.has(row)) continue
      if (process.stderr.isTTY) process.stderr.write(`\r\u001b[Krun ${round} of ${runCount}: ${row.name}`)
      try {
        row.runs.push(await action(row))
      } catch (error) {
        failed.add(row)
        console.error(`\nbench: "${row.name}" HAS FAILED in run ${round} and does not count: ${(error as Error).message}`)
        process.exitCode = 1
      }
    }
  }
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K')
  return rows.filter((row) => !failed.has(row))
}
