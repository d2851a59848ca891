import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ended } from './ended.ts'
import { NatsServers } from './nats-servers.ts'
import type { NodeSettings } from './node.ts'

export interface ClusterOptions {
  /** where servers and nodes keep what they have, a folder for each */
  readonly dataDir: string
  /** of the three pages; 0 for any free ones */
  readonly ports: readonly [number, number, number]
  /** for the SDKs over TCP; default any free ones */
  readonly tcpPorts?: readonly [number, number, number]
  /** default 'none', as the page wants it; 'push' for clients that do not ask for what they missed */
  readonly offline?: 'none' | 'push'
}

interface Node {
  readonly nodeID: number
  port: number
  tcpPort: number
  process: ChildProcess | undefined
}

const NODE_PROGRAM = fileURLToPath(new URL('node.ts', import.meta.url))
const START_LIMIT_MS = 60_000

/** Three servers and three nodes, each in a process of its own, all on this machine. */
export class Cluster {
  readonly servers: NatsServers
  readonly #options: ClusterOptions
  readonly #nodes: readonly Node[]

  private constructor(servers: NatsServers, options: ClusterOptions) {
    this.servers = servers
    this.#options = options
    this.#nodes = options.ports.map((port, index) => ({ nodeID: index + 1, port, tcpPort: options.tcpPorts?.[index] ?? 0, process: undefined }))
  }

  /** Resolves when all six can be used. @throws Error that says what to do when nats-server is missing, or names a node that has ended */
  static async start(options: ClusterOptions): Promise<Cluster> {
    await mkdir(options.dataDir, { recursive: true })
    const cluster = new Cluster(await NatsServers.start(join(options.dataDir, 'nats')), options)
    try {
      await Promise.all(cluster.#nodes.map((_, index) => cluster.startNode(index)))
      return cluster
    } catch (error) {
      await cluster.close()
      throw error
    }
  }

  /** of the pages and their WebSockets, at `/ws` */
  get ports(): readonly number[] {
    return this.#nodes.map(({ port }) => port)
  }

  get tcpPorts(): readonly number[] {
    return this.#nodes.map(({ tcpPort }) => tcpPort)
  }

  /** Start one that is not running, on the port and the folder it had. Resolves when it can be used. */
  async startNode(index: number): Promise<void> {
    const node = this.#nodes[index]!
    const dataDir = join(this.#options.dataDir, `node-${node.nodeID}`)
    await mkdir(dataDir, { recursive: true })
    const settings: NodeSettings = {
      nodeID: node.nodeID,
      servers: this.servers.urls,
      port: node.port,
      tcpPort: node.tcpPort,
      dataDir,
      offline: this.#options.offline ?? 'none',
    }
    const log = join(dataDir, 'log')
    const output = await open(log, 'a')
    const child = fork(NODE_PROGRAM, [JSON.stringify(settings)], { execArgv: ['--import', 'tsx'], stdio: ['ignore', output.fd, output.fd, 'ipc'] })
    node.process = child
    await output.close()
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), START_LIMIT_MS)
    try {
      const ready = once(child, 'message', { signal: limit.signal })
      const gone = once(child, 'exit', { signal: limit.signal }).then(() => undefined)
      gone.catch(() => undefined)
      ready.catch(() => undefined)
      const told = await Promise.race([ready, gone])
      if (told === undefined) throw new Error(`node ${node.nodeID} has ended: ${log} says why. Is another program on port ${node.port}, or another cluster in this folder?`)
      const { port, tcpPort } = told[0] as { port: number; tcpPort: number }
      Object.assign(node, { port, tcpPort })
    } finally {
      clearTimeout(timer)
      limit.abort()
    }
  }

  /** kill -9, and wait until it is gone. */
  async killNode(index: number): Promise<void> {
    const node = this.#nodes[index]!
    await ended(node.process, 'SIGKILL')
    node.process = undefined
  }

  /** The nodes first, so that they find the servers there while they close. */
  async close(): Promise<void> {
    await Promise.all(this.#nodes.map(({ process }) => ended(process, 'SIGTERM')))
    await this.servers.close()
  }
}
