import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { ended } from './ended.ts'

const COUNT = 3
const READY_LIMIT_MS = 30_000

interface Server {
  readonly name: string
  readonly port: number
  readonly monitorPort: number
  readonly configPath: string
  readonly logPath: string
  process: ChildProcess | undefined
}

/** Three nats-servers that are one cluster, on free ports of this machine. */
export class NatsServers {
  readonly #servers: readonly Server[]

  private constructor(servers: readonly Server[]) {
    this.#servers = servers
  }

  /** Resolves when JetStream can be used. @throws Error that says what to install when there is no nats-server */
  static async start(folder: string): Promise<NatsServers> {
    const version = natsServerVersion()
    if (version === undefined) {
      throw new Error('nats-server is not installed: "apt-get install nats-server" or "brew install nats-server", or see https://github.com/nats-io/nats-server/releases')
    }
    await mkdir(folder, { recursive: true })
    const servers = new NatsServers(await configure(folder, version))
    try {
      for (let index = 0; index < COUNT; index++) servers.startServer(index)
      await servers.ready()
      return servers
    } catch (error) {
      await servers.close()
      throw error
    }
  }

  get urls(): readonly string[] {
    return this.#servers.map(({ port }) => `nats://127.0.0.1:${port}`)
  }

  /** Start one that is not running, on the ports and the folder it had. `ready` says when it can be used. */
  startServer(index: number): void {
    const server = this.#servers[index]!
    server.process = spawn('nats-server', ['-c', server.configPath, '-l', server.logPath], { stdio: 'ignore', detached: true })
    server.process.on('error', (error) => console.error(`${server.name}:`, error.message))
  }

  /** kill -9, and wait until it is gone. */
  async killServer(index: number): Promise<void> {
    const server = this.#servers[index]!
    await ended(server.process, 'SIGKILL')
    server.process = undefined
  }

  /** Resolves when every server is in step with the others. */
  async ready(): Promise<void> {
    const deadlineMs = performance.now() + READY_LIMIT_MS
    for (const server of this.#servers) {
      while (!(await isReady(server))) {
        if (server.process !== undefined && server.process.exitCode !== null) throw new Error(`${server.name} has ended: ${server.logPath} says why`)
        if (performance.now() > deadlineMs) throw new Error(`${server.name} is not ready after ${READY_LIMIT_MS} ms: ${server.logPath} may say why`)
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#servers.map(({ process }) => ended(process, 'SIGTERM')))
  }
}

/** undefined where there is none */
export function natsServerVersion(): string | undefined {
  try {
    return /v(\d+\.\d+)/.exec(execFileSync('nats-server', ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))?.[1]
  } catch {
    return undefined
  }
}

async function configure(folder: string, version: string): Promise<Server[]> {
  const ports = await freePorts(3 * COUNT)
  const routePorts = ports.slice(2 * COUNT)
  // From 2.10 on what is acknowledged can be on the disk first; before, the servers sync every two minutes.
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const sync = major > 2 || minor >= 10 ? 'sync_interval: always' : ''
  return Promise.all(
    Array.from({ length: COUNT }, async (_, index): Promise<Server> => {
      const name = `nats-${index + 1}`
      const [port, monitorPort] = [ports[index]!, ports[COUNT + index]!]
      const configPath = join(folder, `${name}.conf`)
      const lines = [
        `server_name: ${name}`,
        `listen: "127.0.0.1:${port}"`,
        `http: "127.0.0.1:${monitorPort}"`,
        `jetstream { store_dir: ${JSON.stringify(join(folder, name))}, max_file_store: 20GB, ${sync} }`,
        `cluster { name: chat, listen: "127.0.0.1:${routePorts[index]}", routes: [${routePorts.map((route) => `nats-route://127.0.0.1:${route}`).join(', ')}] }`,
      ]
      await writeFile(configPath, `${lines.join('\n')}\n`)
      return { name, port, monitorPort, configPath, logPath: join(folder, `${name}.log`), process: undefined }
    }),
  )
}

/** Healthy, and it knows who leads. */
async function isReady({ monitorPort }: Server): Promise<boolean> {
  const ask = async (path: string): Promise<Record<string, unknown>> =>
    (await (await fetch(`http://127.0.0.1:${monitorPort}/${path}`, { signal: AbortSignal.timeout(2_000) })).json()) as Record<string, unknown>
  try {
    if ((await ask('healthz')).status !== 'ok') return false
    const { leader, cluster_size: size } = ((await ask('jsz')).meta_cluster ?? {}) as { leader?: string; cluster_size?: number }
    return leader !== undefined && leader !== '' && size === COUNT
  } catch {
    return false // it does not listen yet
  }
}

/** Held all at once, so that no two are equal. */
async function freePorts(count: number): Promise<number[]> {
  const holders = await Promise.all(
    Array.from({ length: count }, async () => {
      const holder = createServer()
      await new Promise<void>((resolve, reject) => holder.once('error', reject).listen(0, '127.0.0.1', resolve))
      return holder
    }),
  )
  const ports = holders.map((holder) => (holder.address() as AddressInfo).port)
  await Promise.all(holders.map((holder) => new Promise((resolve) => holder.close(resolve))))
  return ports
}
