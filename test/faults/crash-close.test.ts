import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { levelStorage } from 'imengine/level'
import { seededRandom } from 'imengine/testing'
import { CrashClient, GROUPS, UIDS, type Acked } from './crash-clients.ts'
import type { Answer, Ask } from './crash-server.ts'

/** `CRASH_SEED=7 CRASH_ROUNDS=100 npx vitest run test/faults/crash-close.test.ts` looks elsewhere, and for longer. */
const seed = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000)
const rounds = Number(process.env['CRASH_ROUNDS'] ?? 8)

/** How much later than "close" the end comes, at most: an orderly end takes about as long, on a slow disk and on the usual one. */
const MAX_DELAY_MS = { slow: 160, usual: 30 } as const

const children: ChildProcess[] = []
const folders: string[] = []
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

function launch(path: string, disk: keyof typeof MAX_DELAY_MS): ChildProcess {
  const file = fileURLToPath(new URL('crash-server.ts', import.meta.url))
  const child = fork(file, [path, disk], { execArgv: ['--import', 'tsx'], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  children.push(child)
  return child
}

async function answerTo(child: ChildProcess, ask?: Ask): Promise<Answer> {
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('the server has ended')))
  ended.catch(() => undefined)
  const answer = once(child, 'message')
  if (ask !== undefined) child.send(ask)
  return ((await Promise.race([answer, ended])) as [Answer])[0]
}

/** Everything that was acknowledged, by the storage alone: once, where the client was told it is, without a gap. */
async function lookInto(path: string, acked: ReadonlyMap<string, Acked>): Promise<void> {
  const storage = levelStorage({ path })
  await storage.open()
  try {
    const found = await storage.messages.get([...acked.values()].map(({ messageID }) => messageID))
    ;[...acked.values()].forEach(({ clientMsgNo, messageSeq, uid, key, text }, index) => {
      const message = found[index]
      expect(message && { ...message, text: Buffer.from(message.payload).toString() }, `${clientMsgNo} of ${uid}`).toMatchObject({
        clientMsgNo, messageSeq, fromUID: uid, ...key, text,
      })
    })
    for (const key of GROUPS) {
      const seqs: number[] = []
      for (;;) {
        const page = await storage.messages.range(key, { startSeq: seqs.length + 1, limit: 10_000 })
        if (page.length === 0) break
        seqs.push(...page.map(({ messageSeq }) => messageSeq))
      }
      expect(seqs).toEqual(seqs.map((_, index) => index + 1))
      expect(await storage.messages.lastSeq(key)).toBe(seqs.length)
    }
  } finally {
    await storage.close()
  }
}

describe('a server that is killed while it closes', () => {
  // P1
  it('has every message it acknowledged, once, at the seq it told, and opens again', async () => {
    process.stdout.write(`crash-close.test.ts: CRASH_SEED=${seed}\n`)
    const random = seededRandom(seed)
    const path = await mkdtemp(join(tmpdir(), 'imengine-crash-close-'))
    folders.push(path)
    const acked = new Map<string, Acked>()
    let onAck = (): void => undefined
    const clients = UIDS.map((uid) => new CrashClient({ uid, random, acked, onAck: () => onAck() }))
    const tally = { killed: 0, hadEnded: 0 }
    let next = launch(path, 'slow')
    for (let round = 0; round < rounds; round++) {
      const disk = round % 2 === 0 ? 'slow' : 'usual'
      const server = next
      await answerTo(server)
      const opened = await answerTo(server, { kind: 'open' })
      if (opened.kind !== 'open') throw new Error(`the server said ${opened.kind}`)
      if (round === 0) for (const key of GROUPS) await answerTo(server, { kind: 'create', key, subscribers: UIDS })
      let acksLeft = 1 + random.below(400)
      const busy = new Promise<void>((resolve) => {
        onAck = () => {
          if (--acksLeft === 0) resolve()
        }
      })
      const running = clients.map((client) => client.run(opened.port, []))
      await busy
      const exited = once(server, 'exit')
      server.send({ kind: 'close' } satisfies Ask)
      await new Promise((resolve) => setTimeout(resolve, random.below(MAX_DELAY_MS[disk])))
      if (server.kill('SIGKILL')) tally.killed++
      else tally.hadEnded++
      await Promise.all([exited, ...running])
      await lookInto(path, acked)
      next = launch(path, disk === 'slow' ? 'usual' : 'slow')
    }
    expect(clients.flatMap(({ failures }) => failures)).toEqual([])
    process.stdout.write(`crash-close.test.ts: ${acked.size} acknowledged, ${JSON.stringify(tally)}\n`)
    expect(Math.min(tally.killed, acked.size)).toBeGreaterThan(0)
  }, 60_000 + rounds * 10_000)
})
