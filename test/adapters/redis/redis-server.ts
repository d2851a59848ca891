import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'

/** Is there a redis-server to test against? Says loudly when there is none. */
export function hasRedisServer(): boolean {
  const isThere = spawnSync('redis-server', ['--version']).status === 0
  if (!isThere) process.stderr.write('SKIPPED: no redis-server here, so imengine/redis is not tested. Install the package redis-server.\n')
  return isThere
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** A Redis of a test's own, which keeps nothing across its ends. */
export class RedisServer {
  readonly port: number
  readonly url: string
  readonly #folder = mkdtempSync(join(tmpdir(), 'imengine-redis-'))
  #process: ChildProcess | undefined

  private constructor(port: number) {
    this.port = port
    this.url = `redis://127.0.0.1:${port}`
  }

  static async start(settings: readonly string[] = []): Promise<RedisServer> {
    const server = new RedisServer(await freePort())
    await server.begin(settings)
    return server
  }

  /** Start it on its port, empty. */
  async begin(settings: readonly string[] = []): Promise<void> {
    const own = ['--port', String(this.port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', this.#folder]
    this.#process = spawn('redis-server', [...own, ...settings], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#process.stdout!.setEncoding('utf8')
    for await (const text of this.#process.stdout!) if ((text as string).includes('Ready to accept connections')) break
  }

  /** End it at once, with everything it knows. */
  async kill(): Promise<void> {
    const running = this.#process
    this.#process = undefined
    if (running === undefined || running.exitCode !== null) return
    const ended = once(running, 'exit')
    running.kill('SIGKILL')
    await ended
  }

  /** It holds its connections and answers nothing, until `wake`. */
  freeze(): void {
    this.#process?.kill('SIGSTOP')
  }

  wake(): void {
    this.#process?.kill('SIGCONT')
  }

  async stop(): Promise<void> {
    this.wake()
    await this.kill()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** A plain client for looking at the server; to be disconnected by the test. */
  client(): Redis {
    return new Redis(this.url, { connectionName: 'test' })
  }
}

/** Look again until it is so. What happens in another process, or by a clock that is not ours, cannot be waited for otherwise. */
export async function until(isSo: () => boolean | Promise<boolean>, what: string, limitMs = 15_000): Promise<void> {
  const deadlineMs = performance.now() + limitMs
  while (!(await isSo())) {
    if (performance.now() > deadlineMs) throw new Error(`waited in vain until ${what}`)
    await sleep(10)
  }
}
