import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'

const HOME = '/usr/lib/postgresql'

/** Where the server's programs are; undefined, and said so, where they are not. */
export const binaries: string | undefined = findBinaries()

function findBinaries(): string | undefined {
  const versions = existsSync(HOME) ? readdirSync(HOME).sort((a, b) => Number(b) - Number(a)) : []
  const found = versions.map((version) => join(HOME, version, 'bin')).find((folder) => existsSync(join(folder, 'initdb')))
  // eslint-disable-next-line no-console -- a test that is not run must be seen
  if (found === undefined) console.warn(`SKIPPED: the tests of imengine/postgres need a PostgreSQL server in ${HOME}: apt-get install postgresql`)
  return found
}

/** PostgreSQL refuses to run as root. */
const isRoot = process.getuid?.() === 0
const nobody = isRoot ? { uid: Number(execFileSync('id', ['-u', 'nobody'])), gid: Number(execFileSync('id', ['-g', 'nobody'])) } : {}

/** A server of its own in a temporary folder, without disk syncs. */
export class TestServer {
  readonly port: number
  readonly #folder: string
  readonly #settings: readonly string[]
  #process: ChildProcess | undefined
  #databaseCount = 0

  private constructor(folder: string, port: number, settings: readonly string[]) {
    this.#folder = folder
    this.port = port
    this.#settings = settings
  }

  static async start(settings: readonly string[] = []): Promise<TestServer> {
    const folder = mkdtempSync(join(tmpdir(), 'imengine-postgres-'))
    if (nobody.uid !== undefined) chownSync(folder, nobody.uid, nobody.gid)
    const passwordFile = join(folder, 'password')
    writeFileSync(passwordFile, 'owner-password\n', { mode: 0o644 })
    execFileSync(join(binaries!, 'initdb'), ['-D', join(folder, 'data'), '-U', 'owner', '-A', 'scram-sha-256', `--pwfile=${passwordFile}`, '-E', 'UTF8', '--no-locale', '-N'], {
      stdio: 'ignore',
      cwd: folder,
      ...nobody,
    })
    const server = new TestServer(folder, await freePort(), settings)
    await server.run()
    return server
  }

  get pid(): number {
    return this.#process!.pid!
  }

  async run(): Promise<void> {
    const settings = ['fsync=off', 'max_connections=60', 'shared_buffers=16MB', 'listen_addresses=127.0.0.1', `port=${this.port}`, `unix_socket_directories=${this.#folder}`, ...this.#settings]
    this.#process = spawn(join(binaries!, 'postgres'), ['-D', join(this.#folder, 'data'), ...settings.flatMap((setting) => ['-c', setting])], {
      stdio: 'ignore',
      cwd: this.#folder,
      ...nobody,
    })
    for (let tries = 0; ; tries++) {
      try {
        await this.ask('postgres', 'SELECT 1')
        return
      } catch (error) {
        if (tries > 200) throw error
        await new Promise((resolve) => setTimeout(resolve, 25))
      }
    }
  }

  /** 'SIGQUIT': at once, as after a crash; 'SIGINT': connections are ended */
  async end(signal: 'SIGQUIT' | 'SIGINT' = 'SIGINT'): Promise<void> {
    const child = this.#process!
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGCONT')
    child.kill(signal)
    await ended
  }

  async close(): Promise<void> {
    await this.end()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  url(database = 'postgres', user = 'owner', password = 'owner-password'): string {
    return `postgres://${user}:${password}@127.0.0.1:${this.port}/${database}`
  }

  /** One statement, by the owner, beside everything else. */
  async ask<R = Record<string, unknown>>(database: string, text: string, values: readonly unknown[] = []): Promise<R[]> {
    const client = new Client({ connectionString: this.url(database), connectionTimeoutMillis: 5_000 })
    client.on('error', () => undefined)
    await client.connect()
    try {
      return (await client.query(text, [...values])).rows as R[]
    } finally {
      await client.end()
    }
  }

  /** @returns the name of an empty database */
  async makeDatabase(): Promise<string> {
    const name = `db_${++this.#databaseCount}`
    await this.ask('postgres', `CREATE DATABASE ${name}`)
    return name
  }
}

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}
