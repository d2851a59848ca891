/** Real nats-servers with JetStream, for tests: on free loopback ports, in temporary folders, ended by process id. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The version that is installed; undefined, and said so, where there is none: tests are then skipped. */
export const NATS_SERVER: string | undefined = installedVersion()

/**
 * Whether three of these servers agree again after faults among themselves. Those of 2.9 do not always (docs/cluster.md), and what
 * is tested then runs with `CLUSTER_FULL=1` only.
 */
export const SERVERS_AGREE: boolean = isAtLeast(2, 10)

export interface NatsServersOptions {
  /** default 1: a server alone; 3 and 5 are a cluster */
  readonly count?: 1 | 3 | 5
  /** every write is on the disk before it is confirmed. Servers before 2.10 do not know it: they sync every two minutes. */
  readonly syncAlways?: boolean
  readonly maxPayloadBytes?: number
  readonly user?: string
  readonly pass?: string
  readonly token?: string
  /** further lines of the configuration, as they are: a TLS block, for one */
  readonly configuration?: string
  /** Between two servers of a cluster, so that a test can part them: the port at which `from` reaches `port` of `to`. */
  readonly routeVia?: (from: number, to: number, port: number) => Promise<number>
}

interface Server {
  readonly name: string
  readonly port: number
  readonly monitorPort: number
  readonly configuration: string
  readonly logFile: string
  process: ChildProcess | undefined
  exited: Promise<void>
}

/** Resolves when all of them are ready for JetStream. */
export async function startNatsServers(options: NatsServersOptions = {}): Promise<NatsServers> {
  const folder = await mkdtemp(join(tmpdir(), 'imengine-nats-'))
  for (let attempt = 1; ; attempt++) {
    const servers = new NatsServers(folder, await prepare(folder, options))
    try {
      await Promise.all(servers.urls.map((_, index) => servers.start(index)))
      await servers.ready()
      return servers
    } catch (error) {
      if (attempt < 3) await servers.end() // a port may have been taken between our look and its use
      else await servers.close()
      if (attempt >= 3) throw error
    }
  }
}

export class NatsServers {
  readonly #folder: string
  readonly #servers: readonly Server[]

  constructor(folder: string, servers: readonly Server[]) {
    this.#folder = folder
    this.#servers = servers
  }

  get urls(): string[] {
    return this.#servers.map(({ port }) => `nats://127.0.0.1:${port}`)
  }

  /** of those that are running */
  get pids(): number[] {
    return this.#servers.flatMap(({ process }) => process?.pid ?? [])
  }

  url(index: number): string {
    return this.urls[index]!
  }

  /** Start one that is not running, on the ports and the folder it had. Does not wait until it is ready. */
  async start(index: number): Promise<void> {
    const server = this.#server(index)
    if (server.process !== undefined) throw new Error(`${server.name} is running`)
    const process = spawn('nats-server', ['-c', server.configuration, '-l', server.logFile], { stdio: 'ignore' })
    server.process = process
    server.exited = new Promise((resolve) => {
      process.once('error', () => resolve())
      process.once('exit', () => resolve())
    })
    void server.exited.then(() => {
      if (server.process === process) server.process = undefined
    })
    await Promise.resolve()
  }

  /** kill -9, and wait until it is gone. */
  async kill(index: number): Promise<void> {
    const server = this.#server(index)
    server.process?.kill('SIGKILL')
    await server.exited
    server.process = undefined
  }

  async restart(index: number): Promise<void> {
    await this.kill(index)
    await this.start(index)
    await this.ready()
  }

  /** SIGSTOP: it holds its connections and says nothing. Where the system tells, it is at a stop when this returns: threads may run on for a moment. */
  freeze(index: number): void {
    const { process } = this.#server(index)
    process?.kill('SIGSTOP')
    for (let looks = 0; looks < 10_000 && process?.pid !== undefined && isRunning(process.pid); looks++);
  }

  thaw(index: number): void {
    this.#server(index).process?.kill('SIGCONT')
  }

  /** Wait until every running server has all its routes, knows who leads JetStream, and is healthy. */
  async ready(timeoutMs = 20_000): Promise<void> {
    const running = this.#servers.filter(({ process }) => process !== undefined)
    await until(async () => {
      for (const server of running) {
        if (server.process === undefined) throw new Error(`${server.name} has ended: see its log`)
        if ((await ask<{ status?: string }>(server, 'healthz')).status !== 'ok') return false
        if (this.#servers.length === 1) continue
        const { routes = [] } = await ask<{ routes?: { remote_name?: string; remote_id: string }[] }>(server, 'routez')
        if (new Set(routes.map(({ remote_id }) => remote_id)).size < running.length - 1) return false
        const { meta_cluster } = await ask<{ meta_cluster?: { leader?: string; cluster_size?: number } }>(server, 'jsz')
        const leader = meta_cluster?.leader ?? ''
        if (!running.some(({ name }) => name === leader) || meta_cluster?.cluster_size !== this.#servers.length) return false
      }
      return true
    }, timeoutMs, 'the nats-servers are not ready')
  }

  /** Which server leads a stream; waits for one that is running. */
  async leaderOf(stream: string, timeoutMs = 20_000): Promise<number> {
    let index = -1
    await until(async () => {
      for (const server of this.#servers) {
        if (server.process === undefined) continue
        const { account_details = [] } = await ask<JetStreamState>(server, 'jsz?acc=$G&streams=true')
        const found = account_details.flatMap(({ stream_detail = [] }) => stream_detail).find(({ name }) => name === stream)
        const leader = found && (found.cluster?.leader ?? server.name)
        index = this.#servers.findIndex(({ name, process }) => name === leader && process !== undefined)
        if (index >= 0) return true
      }
      return false
    }, timeoutMs, `stream ${stream} has no leader`)
    return index
  }

  /** kill -9 all of them. */
  async end(): Promise<void> {
    await Promise.all(this.#servers.map((_, index) => this.kill(index)))
  }

  async close(): Promise<void> {
    await this.end()
    await rm(this.#folder, { recursive: true, force: true })
  }

  #server(index: number): Server {
    const server = this.#servers[index]
    if (server === undefined) throw new RangeError(`there is no server ${index}`)
    return server
  }
}

interface JetStreamState {
  readonly account_details?: { readonly stream_detail?: { readonly name: string; readonly cluster?: { readonly leader?: string } }[] }[]
}

async function prepare(folder: string, options: NatsServersOptions): Promise<Server[]> {
  const { count = 1, syncAlways = false, maxPayloadBytes, user, pass, token, configuration = '', routeVia } = options
  const ports = await freePorts(3 * count)
  const routePorts = ports.slice(2 * count)
  const routesOf = async (from: number): Promise<string> => {
    const reached = await Promise.all(routePorts.map((port, to) => (routeVia === undefined || to === from ? Promise.resolve(port) : routeVia(from, to, port))))
    return reached.map((port) => `nats-route://127.0.0.1:${port}`).join(', ')
  }
  // Servers tell each other where they are, and would go around what lies between them.
  const advertise = routeVia === undefined ? '' : '  advertise: "127.0.0.1:1"\n'
  const sync = syncAlways && isAtLeast(2, 10) ? 'sync_interval: always' : ''
  const authorization = [user && `user: ${JSON.stringify(user)}`, pass && `password: ${JSON.stringify(pass)}`, token && `token: ${JSON.stringify(token)}`]
  const wanted = authorization.filter(Boolean).join('\n  ')
  const servers: Server[] = []
  for (let i = 0; i < count; i++) {
    const name = `n${i}`
    const [port, monitorPort] = [ports[i]!, ports[count + i]!]
    const lines = [
      `server_name: ${name}`,
      `listen: "127.0.0.1:${port}"`,
      `http: "127.0.0.1:${monitorPort}"`,
      `jetstream {\n  store_dir: ${JSON.stringify(join(folder, name))}\n  ${sync}\n}`,
      maxPayloadBytes === undefined ? '' : `max_payload: ${maxPayloadBytes}`,
      wanted === '' ? '' : `authorization {\n  ${wanted}\n}`,
      count === 1 ? '' : `cluster {\n  name: test\n  listen: "127.0.0.1:${routePorts[i]}"\n${advertise}  routes: [${await routesOf(i)}]\n}`,
      configuration,
    ]
    const path = join(folder, `${name}.conf`)
    await writeFile(path, lines.join('\n'))
    servers.push({ name, port, monitorPort, configuration: path, logFile: join(folder, `${name}.log`), process: undefined, exited: Promise.resolve() })
  }
  return servers
}

/** Does any of its threads run? false where nobody can tell. */
function isRunning(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((thread) => !/^\d+ \(.*\) [Tt]/.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8')))
  } catch {
    return false
  }
}

/** Held all at once, so that no two are equal. */
async function freePorts(count: number): Promise<number[]> {
  const holders = await Promise.all(
    Array.from({ length: count }, () => {
      const holder = createServer()
      return new Promise<typeof holder>((resolve, reject) => {
        holder.once('error', reject)
        holder.listen(0, '127.0.0.1', () => resolve(holder))
      })
    }),
  )
  const ports = holders.map((holder) => (holder.address() as { port: number }).port)
  await Promise.all(holders.map((holder) => new Promise((resolve) => holder.close(resolve))))
  return ports
}

/** What the monitoring port says; {} while it says nothing. */
async function ask<T extends object>(server: Server, path: string): Promise<Partial<T>> {
  try {
    const response = await fetch(`http://127.0.0.1:${server.monitorPort}/${path}`, { signal: AbortSignal.timeout(2_000) })
    return (await response.json()) as T
  } catch {
    return {}
  }
}

/** Ask again and again until it holds. @throws after `timeoutMs` */
export async function until(holds: () => boolean | Promise<boolean>, timeoutMs: number, complaint: string): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs
  while (!(await holds())) {
    if (performance.now() > deadlineMs) throw new Error(`${complaint} after ${timeoutMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

function isAtLeast(wantedMajor: number, wantedMinor: number): boolean {
  const [major = 0, minor = 0] = (NATS_SERVER ?? '').split('.').map(Number)
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}

function installedVersion(): string | undefined {
  try {
    const version = /v(\d+\.\d+\.\d+)/.exec(execFileSync('nats-server', ['--version'], { encoding: 'utf8' }))?.[1]
    if (version !== undefined) return version
  } catch {
    // told below
  }
  // eslint-disable-next-line no-console -- a skipped test must be heard
  console.warn('SKIPPED: tests of imengine/nats need a nats-server: apt-get install nats-server')
  return undefined
}
