import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { ClassicLevel } from 'classic-level'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { allowAnyToken, IMEngine } from 'imengine'
import { levelStorage, type LevelStorage } from 'imengine/level'
import { group, message } from '../adapters/level/watched-level.ts'
import type { Job, Said } from './storage-child.ts'

const script = fileURLToPath(new URL('storage-child.ts', import.meta.url))
const canLimit = process.platform === 'linux' && spawnSync('prlimit', ['--version']).status === 0
const isPosix = process.platform !== 'win32'

let folder: string
/** in it, not there yet */
let path: string
const children: ChildProcess[] = []
const opened: LevelStorage[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'imengine-level-'))
  path = join(folder, 'db')
})

afterEach(async () => {
  for (const child of children.splice(0)) if (child.exitCode === null && child.signalCode === null) await ended(child)
  for (const storage of opened.splice(0)) await storage.close()
  await chmod(folder, 0o755)
  await rm(folder, { recursive: true, force: true })
})

async function ended(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** A process that does a job on a folder; with a bound on the size of files, in units of 1024 bytes. */
function start(job: Job, at: string, fileBound?: number): ChildProcess {
  const args = ['--import', 'tsx', script, job, at]
  // Beyond the bound the system sends a signal that ends the process, unless it is ignored: then the write fails.
  const shell = ['-c', `trap '' XFSZ; ${fileBound === undefined ? '' : `ulimit -f ${fileBound};`} exec "$0" "$@"`, process.execPath, ...args]
  const child = isPosix ? spawn('bash', shell, { stdio: ['pipe', 'pipe', 'inherit'] }) : spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  return child
}

async function* said(child: ChildProcess): AsyncGenerator<Said, void, undefined> {
  for await (const line of createInterface({ input: child.stdout! })) yield JSON.parse(line) as Said
}

async function all(child: ChildProcess): Promise<Said[]> {
  const everything: Said[] = []
  for await (const each of said(child)) everything.push(each)
  return everything
}

async function open(at = path): Promise<LevelStorage> {
  const storage = levelStorage({ path: at })
  await storage.open()
  opened.push(storage)
  return storage
}

const room = group('room')

describe('a disk that takes no more', () => {
  it.runIf(isPosix)('is IM_STORE_FULL; all that was acknowledged before is there in the next life, and writing goes on after a second', async () => {
    const events = await all(start('fill', path, 4_096))
    const failed = events.findIndex(({ event }) => event === 'failed')
    expect(failed).toBeGreaterThan(10)
    expect(events[failed]).toMatchObject({ code: 'IM_STORE_FULL', retryable: true })
    expect(events.slice(failed + 1).map(({ event, count, lastSeq }) => [event, count, lastSeq])).toEqual([
      ['read', failed - 1, failed - 1], ['acked', undefined, undefined], ['read', failed, failed],
    ])
    const acked = events.filter(({ event }) => event === 'acked')
    const found = await (await open()).messages.range(room, { limit: 10_000 })
    expect(found.map(({ messageSeq, messageID }) => [messageSeq, messageID])).toEqual(acked.map(({ messageSeq, messageID }) => [messageSeq, messageID]))
    expect(found.map(({ messageSeq }) => messageSeq)).toEqual(acked.map((_, index) => index + 1))
  })

  it.runIf(canLimit)('is not closed while it could not be opened again: reads go on until there is room', async () => {
    const events = await all(start('no-room-to-reopen', path))
    expect(events.slice(31)).toMatchObject([
      { event: 'failed', code: 'IM_STORE_FULL' },
      { event: 'failed', code: 'IM_STORE_FULL' },
      { event: 'read', lastSeq: 30, count: 30 },
      { event: 'acked', messageSeq: 31 },
      { event: 'read', lastSeq: 31, count: 31 },
    ])
    expect((await readdir(path)).filter((name) => name.includes('probe'))).toEqual([])
  })
})

describe('a process that is killed while it applies a log', () => {
  it('has its position and the messages of exactly the entries up to it, and loses none that it said was applied', async () => {
    let saidIndex = 0
    for (let life = 0; life < 3; life++) {
      const child = start('follow', path)
      const endAt = saidIndex + 150 + 7 * life
      for await (const { index } of said(child)) {
        if (index !== undefined) saidIndex = index
        if (saidIndex >= endAt) break
      }
      await ended(child)
      const storage = await open()
      const position = await storage.messages.logPosition!('log')
      expect(position).toBeGreaterThanOrEqual(saidIndex)
      for (const id of ['a', 'b']) {
        const found = await storage.messages.range(group(id), { limit: 10_000 })
        expect(found.map(({ clientMsgNo }) => clientMsgNo)).toEqual(Array.from({ length: Math.ceil(position / 2) }, (_, i) => `c${2 * i + 1}`))
        expect(found.map(({ messageSeq }) => messageSeq)).toEqual(found.map((_, i) => i + 1))
      }
      await storage.close()
      opened.length = 0
    }
  })
})

describe('a folder that is in use', () => {
  it('by another process is IM_STORE_LOCKED, which engine.start() rejects with, until that process is gone', async () => {
    const child = start('hold', path)
    for await (const { event } of said(child)) if (event === 'opened') break
    const engine = (): IMEngine => new IMEngine({ tokenVerifier: allowAnyToken(), storage: levelStorage({ path }) })
    const refused = engine()
    await expect(refused.start()).rejects.toMatchObject({ code: 'IM_STORE_LOCKED', retryable: true, message: /end the other process/ })
    expect(refused.state).toBe('closed')
    await ended(child)
    const next = engine()
    await next.start()
    await next.close()
  })

  it('by the same process is IM_STORE_LOCKED, and the one who has it notices nothing', async () => {
    const { messages } = await open()
    await expect(levelStorage({ path }).open()).rejects.toMatchObject({ code: 'IM_STORE_LOCKED', retryable: true })
    expect(await messages.append([{ key: room, messages: [message('room', '1')] }])).toMatchObject([[{ messageSeq: 1 }]])
  })
})

describe('a folder that may not be used', () => {
  it.runIf(isPosix)('is IM_STORE_DENIED, whether it is there or would have to be made', async () => {
    await (await open()).close()
    await chmod(folder, 0o555)
    await chmod(path, 0o555)
    for (const at of [path, join(folder, 'new')]) {
      const [answer] = await all(start('as-nobody', at))
      expect(answer, at).toMatchObject({ event: 'failed', code: 'IM_STORE_DENIED', retryable: false, text: expect.stringMatching(/right to read and write/) as string })
    }
    await chmod(path, 0o755)
  })

  it('is IM_STORE_DENIED for a file, and below one', async () => {
    const file = join(folder, 'file')
    await writeFile(file, 'x')
    for (const at of [file, join(file, 'db')]) {
      await expect(levelStorage({ path: at }).open(), at).rejects.toMatchObject({ code: 'IM_STORE_DENIED', retryable: false })
    }
    expect(await readFile(file, 'utf8')).toBe('x')
  })
})

describe('a driver that is not installed', () => {
  it('is IM_DRIVER_MISSING, and says what to install', async () => {
    const [answer] = await all(start('no-driver', path))
    expect(answer).toMatchObject({ code: 'IM_DRIVER_MISSING', text: expect.stringContaining('npm install classic-level') as string })
  })
})

describe('a damaged folder', () => {
  const keys = [group('a'), group('b')]
  const COUNT = 400
  // Noise, and the same in every run: a driver that compresses finds nothing to shorten in it, or always the same.
  const secrets = Array.from({ length: COUNT }, (_, index) => createHash('sha512').update(`message ${index + 1}`).digest())

  /** Two channels one behind the other, all of it in sorted files. */
  async function write(): Promise<void> {
    const storage = await open()
    for (const key of keys) {
      for (let from = 0; from < COUNT; from += 50) {
        await storage.messages.append([{ key, messages: secrets.slice(from, from + 50).map((secret, index) => message(key.channelID, `${from + index}`, secret)) }])
      }
    }
    await storage.close()
    await (await open()).close() // moves what is in the log
  }

  /** Change the bytes of the file in which the first occurrence of `mark` is. */
  async function damage(mark: Buffer, change: (bytes: Buffer, at: number) => void): Promise<void> {
    for (const name of await readdir(path)) {
      const bytes = await readFile(join(path, name))
      const at = bytes.indexOf(mark)
      if (!name.endsWith('.ldb') || at < 0) continue
      change(bytes, at)
      return writeFile(join(path, name), bytes)
    }
    throw new Error('it is in no sorted file')
  }

  const seqsOf = async ({ messages }: LevelStorage, index: number, from = 1, to = COUNT): Promise<number[]> => {
    const found = await messages.range(keys[index]!, { startSeq: from, endSeq: to, limit: 10_000 })
    for (const { messageSeq, payload } of found) expect(Buffer.compare(payload, secrets[messageSeq - 1]!), `message ${messageSeq}`).toBe(0)
    return found.map(({ messageSeq }) => messageSeq)
  }
  const numbers = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, index) => from + index)
  const corrupt = { code: 'IM_STORE_CORRUPT', retryable: false }

  it.each<[string, (bytes: Buffer, at: number) => void]>([
    ['some bytes of a payload', (bytes, at) => bytes.fill(0x55, at + 10, at + 20)],
    ['a block of the file', (bytes, at) => bytes.fill(0xff, at - 2_000, at + 2_000)],
  ])('with other bytes for %s tells so in the channel they are in, and gives the rest', async (_name, change) => {
    await write()
    await damage(secrets[199]!, change)
    const storage = await open()
    for (const direction of ['forward', 'backward'] as const) {
      await expect(storage.messages.range(keys[0]!, { limit: 1_000, direction })).rejects.toMatchObject({ ...corrupt, context: keys[0]! })
    }
    expect(await seqsOf(storage, 0, 1, 100)).toEqual(numbers(1, 100))
    expect(await seqsOf(storage, 0, 300)).toEqual(numbers(300, COUNT))
    expect(await seqsOf(storage, 1)).toEqual(numbers(1, COUNT))
    expect(await storage.messages.lastSeq(keys[0]!)).toBe(COUNT)
  })

  it('never gives a message that was not written, and never leaves one out, wherever four bytes of its messages are changed', async () => {
    await write()
    const whole = join(folder, 'whole')
    await cp(path, whole, { recursive: true })
    let toldCount = 0
    for (let step = 0; step < 16; step++) {
      await rm(path, { recursive: true })
      await cp(whole, path, { recursive: true })
      await damage(secrets[10 + step * 24]!, (bytes, at) => bytes.fill(bytes[at]! ^ 0xff, at - step * 9, at - step * 9 + 4))
      const codeOf = (error: { code: string }): string => error.code
      const storage = levelStorage({ path })
      const failure = await storage.open().then(() => undefined, codeOf) // what is read at the start may be in the same block
      const seqs = failure ?? (await seqsOf(storage, 0).catch(codeOf))
      if (seqs === corrupt.code) toldCount++
      else expect(seqs, `step ${step}`).toEqual(numbers(1, COUNT))
      await storage.close()
    }
    expect(toldCount).toBeGreaterThan(8)
  })

  it.each<[string, (folder: string, manifest: string) => Promise<void>]>([
    ['its manifest cut short', (at, manifest) => truncate(join(at, manifest), 20)],
    ['another manifest', async (at, manifest) => writeFile(join(at, manifest), randomBytes((await stat(join(at, manifest))).size))],
    ['no manifest', (at, manifest) => rm(join(at, manifest))],
    ['a CURRENT that says nothing', (at) => writeFile(join(at, 'CURRENT'), '')],
    ['a CURRENT that points nowhere', (at) => writeFile(join(at, 'CURRENT'), 'MANIFEST-999999\n')],
    ['no CURRENT', (at) => rm(join(at, 'CURRENT'))],
  ])('with %s is not opened, says what to do, and stays as it is', async (_name, change) => {
    await write()
    const before = await readdir(path)
    await change(path, before.find((name) => name.startsWith('MANIFEST'))!)
    const tables = before.filter((name) => name.endsWith('.ldb'))
    await expect(levelStorage({ path }).open()).rejects.toMatchObject({ ...corrupt, message: /backup.*ClassicLevel\.repair/ })
    expect((await readdir(path)).filter((name) => name.endsWith('.ldb'))).toEqual(tables)
    await ClassicLevel.repair(path) // the advice is a good one
    expect(await seqsOf(await open(), 0)).toEqual(numbers(1, COUNT))
  })

  it('with a record that somebody else has changed tells so, for messages and for the standing of a channel', async () => {
    await write()
    const raw = new ClassicLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    const spoil = async (key: Buffer): Promise<void> => {
      const value = (await raw.get(key))!
      value[value.length - 5]! ^= 1
      await raw.put(key, value)
    }
    await spoil(Buffer.from([0x6d, 0, 0, 0, 1, 0, 0, 0, 50])) // the first fifty messages
    await spoil(Buffer.from('C\u0002b'))
    await raw.close()
    const storage = await open()
    await expect(storage.messages.range(keys[0]!)).rejects.toMatchObject(corrupt)
    expect(await seqsOf(storage, 0, 51, 120)).toEqual(numbers(51, 120))
    await expect(Promise.resolve(storage.messages.lastSeq(keys[1]!))).rejects.toMatchObject(corrupt)
    // In one turn: what is damaged fails, and takes nobody with it.
    const append = async (channelID: string, no: string): Promise<unknown> =>
      storage.messages.append([{ key: group(channelID), messages: [message(channelID, no)] }])
    const outcomes = await Promise.allSettled([append('b', 'new'), append('a', 'new'), append('a', '6'), append('c', 'new')])
    expect(outcomes).toMatchObject([
      { reason: corrupt }, { value: [[{ status: 'stored', messageSeq: COUNT + 1 }]] }, { reason: corrupt }, { value: [[{ messageSeq: 1 }]] },
    ])
  })

  it('of something else is not touched', async () => {
    await mkdir(path)
    const raw = new ClassicLevel(path)
    await raw.put('hello', 'world')
    await raw.close()
    await expect(levelStorage({ path }).open()).rejects.toMatchObject({ code: 'IM_STORE_FORMAT' })
    await raw.open() // it is not locked either
    expect(await raw.iterator().all()).toEqual([['hello', 'world']])
    await raw.close()
  })
})
