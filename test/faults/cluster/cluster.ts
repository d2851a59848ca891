import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startNatsServers, until, type NatsServers } from '../../adapters/nats/servers.ts'
import type { Answers, Ask, NodeOptions, NodeStatus } from './cluster-node.ts'
import type { Logs, Room } from './history.ts'
import { RouteProxies } from '../../adapters/nats/route-proxies.ts'

export const NODE_COUNT = 3
/** A server that was stopped, or parted, may take its time until it says that it has everything again. */
export const READY_LIMIT_MS = 60_000
const ASK_LIMIT_MS = 20_000
/** `start` may wait for a majority of servers, and reads everything that it missed. */
const OPEN_LIMIT_MS = 45_000
const SETTLE_LIMIT_MS = 30_000

/** One engine process. */
class EngineProcess {
  readonly child: ChildProcess
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
  readonly #loaded: Promise<unknown>
  #lastID = 0
  port: number | undefined

  constructor(options: NodeOptions) {
    const file = fileURLToPath(new URL('cluster-node.ts', import.meta.url))
    this.child = fork(file, [JSON.stringify(options)], { execArgv: ['--import', 'tsx'], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#loaded = once(this.child, 'message')
    this.#loaded.catch(() => undefined)
    this.child.on('message', (message) => {
      if (typeof message !== 'object') return
      const { id, value, error } = message as { id: number; value?: unknown; error?: string }
      if (error === undefined) this.#waiting.get(id)?.resolve(value)
      else this.#waiting.get(id)?.reject(new Error(`node ${options.nodeID}: ${error}`))
      this.#waiting.delete(id)
    })
    this.child.on('exit', () => {
      this.port = undefined
      for (const { reject } of this.#waiting.values()) reject(new Error(`node ${options.nodeID} has ended`))
      this.#waiting.clear()
    })
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  async open(): Promise<void> {
    await inTime(this.#loaded, ASK_LIMIT_MS, 'an engine process does not load')
    this.port = (await this.ask<'open'>({ kind: 'open' }, OPEN_LIMIT_MS)).port
  }

  ask<K extends Ask['kind']>(ask: Extract<Ask, { readonly kind: K }>, limitMs = ASK_LIMIT_MS): Promise<Answers[K]> {
    const id = ++this.#lastID
    const answered = new Promise<unknown>((resolve, reject) => {
      if (this.hasEnded) return reject(new Error('this node has ended'))
      this.#waiting.set(id, { resolve, reject })
      this.child.send({ id, ask }, (error) => error !== null && reject(error))
    })
    return inTime(answered as Promise<Answers[K]>, limitMs, `no answer to ${(ask as Ask).kind}`)
  }

  async kill(): Promise<void> {
    this.port = undefined
    if (this.hasEnded) return
    const exited = once(this.child, 'exit')
    this.child.kill('SIGKILL')
    await exited
  }
}

/** Three nats-servers with proxies between them, and three engines, each a process. */
export class Cluster {
  readonly servers: NatsServers
  readonly partitionCount: number
  readonly name = 'chaos'
  readonly #proxies: RouteProxies
  readonly #engines: (EngineProcess | undefined)[] = Array.from({ length: NODE_COUNT }, () => undefined)
  readonly #folder: string

  private constructor(servers: NatsServers, proxies: RouteProxies, folder: string, partitionCount: number) {
    this.servers = servers
    this.#proxies = proxies
    this.#folder = folder
    this.partitionCount = partitionCount
  }

  static async start(partitionCount: number): Promise<Cluster> {
    const proxies = new RouteProxies()
    const servers = await startNatsServers({ count: 3, routeVia: proxies.via })
    const cluster = new Cluster(servers, proxies, await mkdtemp(join(tmpdir(), 'imengine-cluster-')), partitionCount)
    try {
      await cluster.#startAll()
    } catch (error) {
      await cluster.close()
      throw error
    }
    return cluster
  }


  async #startAll(): Promise<void> {
    // One makes the streams; who makes a stream that another one is making at the same time waits longer.
    await this.startNode(0)
    await Promise.all([this.startNode(1), this.startNode(2)])
  }

  readonly ports = (): readonly (number | undefined)[] => this.#engines.map((engine) => engine?.port)

  /** Started again, as a process manager would, while the servers are away: an engine does not wait for them. */
  async startNode(index: number, clockOffsetMs = 0): Promise<void> {
    const sinceMs = performance.now()
    for (;;) {
      try {
        return await this.#startNode(index, clockOffsetMs)
      } catch (error) {
        if (!String(error).includes('IMError: the servers that join the nodes') || performance.now() - sinceMs > OPEN_LIMIT_MS) throw error
        await this.killNode(index)
      }
    }
  }

  async #startNode(index: number, clockOffsetMs: number): Promise<void> {
    const { servers, partitionCount: partitions } = this
    const engine = new EngineProcess({
      folder: join(this.#folder, `node${index + 1}`),
      nodeID: index + 1,
      // Each begins with a server of its own.
      servers: servers.urls.map((_, shift) => servers.urls[(index + shift) % servers.urls.length]!),
      name: this.name,
      partitions,
      clockOffsetMs,
    })
    this.#engines[index] = engine
    await engine.open()
  }

  ask<K extends Ask['kind']>(index: number, ask: Extract<Ask, { readonly kind: K }>): Promise<Answers[K]> {
    return this.#engine(index).ask<K>(ask)
  }

  killNode(index: number): Promise<void> {
    return this.#engine(index).kill()
  }

  /** An orderly end. */
  async closeNode(index: number): Promise<void> {
    const engine = this.#engine(index)
    engine.port = undefined
    await engine.ask({ kind: 'close' })
    const exited = once(engine.child, 'exit')
    engine.child.disconnect()
    await inTime(exited, ASK_LIMIT_MS, `node ${index + 1} does not end`)
  }

  freezeNode(index: number): void {
    this.#engine(index).child.kill('SIGSTOP')
  }

  thawNode(index: number): void {
    this.#engine(index).child.kill('SIGCONT')
  }

  cutServer(index: number): void {
    this.#proxies.cut(index)
  }

  healServer(index: number): void {
    this.#proxies.heal(index)
  }

  leaderOf(partition: number): Promise<number> {
    return this.servers.leaderOf(`${this.name}_log_${partition}`)
  }

  statuses(): Promise<NodeStatus[]> {
    return Promise.all(this.#engines.map((_, index) => this.ask(index, { kind: 'status' })))
  }

  /** Resolves when every node follows every partition and has applied as far as any of them has heard of. */
  async settled(): Promise<void> {
    let last: NodeStatus[] = []
    const isSettled = async (): Promise<boolean> => {
      last = await this.statuses()
      const ends = Array.from({ length: this.partitionCount }, (_, i) => Math.max(...last.map(({ partitions }) => partitions[i]!.lastIndex)))
      return last.every(({ isConnected, partitions }) => isConnected && partitions.every(({ isFollowing, appliedIndex }, i) => isFollowing && appliedIndex >= ends[i]!))
    }
    try {
      await until(isSettled, SETTLE_LIMIT_MS, 'the nodes do not settle')
    } catch (error) {
      throw new Error(`${String(error)}: ${JSON.stringify(last)}`, { cause: error })
    }
  }

  logs(rooms: readonly Room[]): Promise<Logs> {
    const keys = rooms.map(({ key }) => key)
    return Promise.all(this.#engines.map((_, index) => this.ask(index, { kind: 'log', keys })))
  }

  async close(): Promise<void> {
    await Promise.all(this.#engines.map(async (engine) => engine?.kill()))
    await this.servers.close()
    this.#proxies.close()
    await rm(this.#folder, { recursive: true, force: true })
  }

  #engine(index: number): EngineProcess {
    const engine = this.#engines[index]
    if (engine === undefined) throw new RangeError(`there is no node ${index + 1}`)
    return engine
  }
}

export async function inTime<T>(promise: Promise<T>, limitMs: number, complaint: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${complaint} within ${limitMs} ms`)), limitMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
