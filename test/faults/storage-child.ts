/** Storage on a folder in a process of its own, for what one process cannot do to itself. Says what happens line by line, as JSON. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { register } from 'node:module'
import { levelStorage } from 'imengine/level'
import { group, message } from '../adapters/level/watched-level.ts'

export type Job =
  /** open, say so, and stay until the parent is gone or ends us */
  | 'hold'
  /** open without the right to write */
  | 'as-nobody'
  /** open where the driver is not installed */
  | 'no-driver'
  /** append 100 kB messages until it fails, then look at what can be read */
  | 'fill'
  /** append, allow files no larger than half of what is there, try again, and lift the bound */
  | 'no-room-to-reopen'
  /** apply a log until somebody ends us: every second entry has a message for each of two channels, the others have none */
  | 'follow'

export interface Said {
  readonly event: 'opened' | 'failed' | 'acked' | 'read' | 'applied'
  readonly index?: number
  readonly code?: string
  readonly text?: string
  readonly retryable?: boolean
  readonly messageSeq?: number
  readonly messageID?: string
  readonly lastSeq?: number
  readonly count?: number
}

const [, , job, path] = process.argv as [string, string, Job, string]
const clock = { nowMs: 0 }
const storage = levelStorage({ path, nowMs: () => clock.nowMs })
const room = group('room')
let count = 0

const say = (said: Said): boolean => process.stdout.write(`${JSON.stringify(said)}\n`)

async function attempt(action: () => Promise<Said>): Promise<boolean> {
  try {
    return say(await action())
  } catch (error) {
    const { code, message: text, retryable } = error as { code: string; message: string; retryable: boolean }
    say({ event: 'failed', code, text, retryable })
    return false
  }
}

const open = (): Promise<boolean> => attempt(async () => (await storage.open(), { event: 'opened' }))

const append = (): Promise<boolean> =>
  attempt(async () => {
    const sent = message('room', `c${++count}`, randomBytes(100_000))
    const [[result] = []] = await storage.messages.append([{ key: room, messages: [sent] }])
    return { event: 'acked', messageSeq: result!.messageSeq, messageID: result!.messageID }
  })

const read = (): Promise<boolean> =>
  attempt(async () => {
    const found = await storage.messages.range(room, { limit: 10_000 })
    return { event: 'read', lastSeq: await storage.messages.lastSeq(room), count: found.length }
  })

if (job === 'hold' && (await open())) {
  process.stdin.resume().on('end', () => process.exit(0))
}
if (job === 'as-nobody') {
  await import('classic-level') // what is loaded later could not be read
  if (process.getuid?.() === 0) process.setuid?.(65_534)
  await open()
}
if (job === 'no-driver') {
  const hook = `export const resolve = (name, context, next) => {
    if (name !== 'classic-level') return next(name, context)
    throw Object.assign(new Error("Cannot find package 'classic-level'"), { code: 'ERR_MODULE_NOT_FOUND' })
  }`
  register(`data:text/javascript,${encodeURIComponent(hook)}`)
  await open()
}
if (job === 'fill' && (await open())) {
  while (await append());
  await read()
  clock.nowMs += 1_000
  await append() // in a new file, which has room
  await read()
  await storage.close()
}
if (job === 'no-room-to-reopen' && (await open())) {
  while (count < 30) await append()
  limitFiles('2000000:unlimited')
  await append()
  clock.nowMs += 1_000
  await append() // what is in the log does not fit a file any more
  await read()
  limitFiles('unlimited:unlimited')
  clock.nowMs += 1_000
  await append()
  await read()
  await storage.close()
}
if (job === 'follow' && (await open())) {
  for (let index = (await storage.messages.logPosition!('log')) + 1; ; index++) {
    const batches = index % 2 === 0 ? [] : ['a', 'b'].map((id) => ({ key: group(id), messages: [message(id, `c${index}`, randomBytes(1_000))] }))
    // Some are under way at once, as when several logs are followed.
    const applied = storage.messages.append(batches, { log: 'log', index })
    const said = Promise.resolve(applied).then(() => say({ event: 'applied', index }))
    if (index % 5 === 0) await said
  }
}

function limitFiles(softAndHard: string): void {
  const { status, stderr } = spawnSync('prlimit', ['--pid', String(process.pid), `--fsize=${softAndHard}`])
  if (status !== 0) throw new Error(`prlimit: ${String(stderr)}`)
}
