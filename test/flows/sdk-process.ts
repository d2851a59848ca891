import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import type { Command, Report } from './sdk-client.ts'

type Of<K extends Report['is']> = Extract<Report, { is: K }>

/**
 * The client program as one file, which starts in a tenth of the time: the SDK comes as modules that Node alone does not
 * load. @returns its path, and how to remove it
 */
export async function buildSDKClient(): Promise<{ path: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'imengine-sdk-client-'))
  const path = join(folder, 'sdk-client.cjs')
  await build({ entryPoints: [fileURLToPath(new URL('sdk-client.ts', import.meta.url))], outfile: path, bundle: true, platform: 'node', format: 'cjs', logLevel: 'error' })
  return { path, remove: () => rm(folder, { recursive: true }) }
}

/** A process with the client SDK in it, and what it has reported so far. */
export class SDKClient {
  readonly #child: ChildProcess
  readonly #reports: Report[] = []
  readonly #waiting = new Set<() => void>()
  /** what each kind of report was read up to */
  readonly #read: Partial<Record<Report['is'], number>> = {}

  constructor(path: string) {
    this.#child = fork(path, { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    this.#child.on('message', (report: Report) => {
      this.#reports.push(report)
      for (const look of this.#waiting) look()
    })
    this.#child.on('exit', () => {
      for (const look of this.#waiting) look()
    })
  }

  /** Starts to connect as `uid`; `next('status')` tells what came of it. */
  async connect({ addr, uid, token = `token-of-${uid}` }: { addr: string; uid: string; token?: string }): Promise<void> {
    await this.next('ready')
    this.#tell({ do: 'connect', addr, uid, token })
  }

  send(channel: { channelID: string; channelType: number }, ...texts: string[]): void {
    this.#tell({ do: 'send', channelID: channel.channelID, channelType: channel.channelType, texts })
  }

  disconnect(): void {
    this.#tell({ do: 'disconnect' })
  }

  /** The next `count` reports of one kind, in the order they came; each is handed out once. */
  async take<K extends Report['is']>(kind: K, count: number): Promise<Of<K>[]> {
    const from = this.#read[kind] ?? 0
    this.#read[kind] = from + count
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const found = this.all(kind)
        if (found.length >= from + count) resolve(found.slice(from, from + count))
        else if (this.#child.exitCode !== null) reject(new Error(`the client ended; it had reported ${JSON.stringify(this.#reports.slice(-5))}`))
        else return
        this.#waiting.delete(look)
      }
      this.#waiting.add(look)
      look()
    })
  }

  async next<K extends Report['is']>(kind: K): Promise<Of<K>> {
    const [report] = await this.take(kind, 1)
    return report as Of<K>
  }

  /** Everything of one kind so far. */
  all<K extends Report['is']>(kind: K): Of<K>[] {
    return this.#reports.filter((report): report is Of<K> => report.is === kind)
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    if (this.#child.connected) this.#child.disconnect()
    await ended
  }

  #tell(command: Command): void {
    this.#child.send(command)
  }
}
