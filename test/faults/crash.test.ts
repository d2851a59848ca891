import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { personChannelID, type ChannelKey } from 'imengine'
import { levelStorage } from 'imengine/level'
import { seededRandom } from 'imengine/testing'
import { CrashClient, GROUPS, UIDS, type Acked, type Sent } from './crash-clients.ts'
import type { Answer, Ask, Stored } from './crash-server.ts'

/** `CRASH_SEED=7 CRASH_ROUNDS=200 npx vitest run test/faults/crash.test.ts` looks elsewhere, and for longer. */
const seed = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000)
const rounds = Number(process.env['CRASH_ROUNDS'] ?? 20)
/** Fewer rounds on a slow machine, unless they were asked for. */
const budgetMs = process.env['CRASH_ROUNDS'] === undefined ? 45_000 : Infinity

const CHANNELS: readonly ChannelKey[] = [
  ...GROUPS,
  ...UIDS.flatMap((uid, index) => UIDS.slice(index + 1).map((peer) => ({ channelID: personChannelID(uid, peer), channelType: 1 }))),
]
const nameOf = ({ channelID, channelType }: ChannelKey): string => `${channelType}:${channelID}`

const children: ChildProcess[] = []
const folders: string[] = []
afterEach(async () => {
  for (const child of children.splice(0)) if (child.exitCode === null && child.signalCode === null) await killed(child)
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

async function killed(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** A server whose code is loaded and which has opened nothing yet. */
function launch(path: string, disk: 'slow' | 'usual'): { child: ChildProcess; loaded: Promise<Answer> } {
  const file = fileURLToPath(new URL('crash-server.ts', import.meta.url))
  const child = fork(file, [path, disk], { execArgv: ['--import', 'tsx'], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  children.push(child)
  const loaded = heard(child)
  loaded.catch(() => undefined)
  return { child, loaded }
}

async function heard<K extends Answer['kind']>(child: ChildProcess): Promise<Extract<Answer, { kind: K }>> {
  const end = new AbortController()
  const exit = once(child, 'exit', { signal: end.signal }).then(() => Promise.reject(new Error('the server has ended')))
  try {
    const [answer] = (await Promise.race([once(child, 'message', { signal: end.signal }), exit])) as unknown[]
    return answer as Extract<Answer, { kind: K }>
  } finally {
    end.abort()
    exit.catch(() => undefined)
  }
}

async function ask<K extends Answer['kind']>(child: ChildProcess, question: Ask): Promise<Extract<Answer, { kind: K }>> {
  const answer = heard<K>(child)
  child.send(question)
  return answer
}

/** What must be there, and what may be. */
class Ledger {
  readonly acked = new Map<string, Acked>()
  readonly clients: readonly CrashClient[]
  /** by channel: what has been looked at, by seq */
  readonly #seen = new Map<string, Stored[]>()
  readonly #places = new Map<string, string>()

  constructor(clients: (ledger: Ledger) => readonly CrashClient[]) {
    this.clients = clients(this)
  }

  unanswered(): string[] {
    return this.clients.flatMap((client) => [...client.unanswered.keys()])
  }

  /** Has it been found in a channel? */
  has(clientMsgNo: string): boolean {
    return this.#places.has(clientMsgNo)
  }

  nextSeq(key: ChannelKey): number {
    return (this.#seen.get(nameOf(key))?.length ?? 0) + 1
  }

  /** Take in what a channel holds from `nextSeq` on: everything once, in its place, with what was sent. */
  take(key: ChannelKey, lastSeq: number, messages: readonly Stored[]): void {
    const sent = new Map<string, Sent>(this.clients.flatMap((client) => [...client.unanswered]))
    const seen = this.#seen.get(nameOf(key)) ?? []
    this.#seen.set(nameOf(key), seen)
    for (const message of messages) {
      const { clientMsgNo, fromUID, text, messageSeq } = message
      const place = `${nameOf(key)} at ${messageSeq}`
      expect(messageSeq, nameOf(key)).toBe(seen.length + 1)
      expect(this.#places.get(clientMsgNo), `${clientMsgNo} is also ${place}`).toBe(undefined)
      const known = this.acked.get(clientMsgNo) ?? sent.get(clientMsgNo)
      expect({ fromUID, text, in: nameOf(key) }, place).toEqual({ fromUID: known?.uid, text: known?.text, in: known && nameOf(known.key) })
      this.#places.set(clientMsgNo, place)
      seen.push(message)
    }
    expect(lastSeq, `the last seq of ${nameOf(key)}`).toBe(seen.length)
  }

  /** Everything that was acknowledged is where the client was told. */
  check(): void {
    for (const { key, clientMsgNo, messageID, messageSeq } of this.acked.values()) {
      const found = this.#seen.get(nameOf(key))?.[messageSeq - 1]
      if (found?.clientMsgNo !== clientMsgNo || found.messageID !== messageID) {
        expect.fail(`${clientMsgNo} was acknowledged as ${messageID} at ${messageSeq} of ${nameOf(key)}, where there is ${JSON.stringify(found)}`)
      }
    }
    expect(this.clients.flatMap((client) => client.failures)).toEqual([])
  }
}

describe('a server that is killed again and again while clients send', () => {
  // P1
  it('has every message it acknowledged, once, at the seq it told, and no gap', async () => {
    process.stdout.write(`crash.test.ts: CRASH_SEED=${seed}\n`)
    const random = seededRandom(seed)
    const path = await mkdtemp(join(tmpdir(), 'imengine-crash-'))
    folders.push(path)
    let onAck = (): void => undefined
    /** Resolves with the acknowledgement after which `isEnough` says yes. */
    const acknowledged = (isEnough: () => boolean): Promise<void> =>
      new Promise((resolve) => {
        onAck = () => {
          if (isEnough()) resolve()
        }
      })
    const ledger = new Ledger(({ acked }) => UIDS.map((uid) => new CrashClient({ uid, random, acked, onAck: () => onAck() })))
    const tally = { rounds: 0, lives: 0, killedWhileOpening: 0, unanswered: 0, ofThemStored: 0, resentAcked: 0 }
    const startedAt = performance.now()

    const launchNext = (): ReturnType<typeof launch> => launch(path, tally.lives++ % 2 === 0 ? 'usual' : 'slow')
    let next = launchNext()
    for (; tally.rounds < rounds && performance.now() - startedAt < budgetMs; tally.rounds++) {
      let server = next
      next = launchNext() // it loads its code while this one serves
      await server.loaded
      if (tally.rounds > 0 && random.below(4) === 0) {
        server.child.send({ kind: 'open' } satisfies Ask)
        await new Promise((resolve) => setTimeout(resolve, random.below(40)))
        await killed(server.child) // while it reads its logs and writes what they hold
        tally.killedWhileOpening++
        server = next
        next = launchNext()
        await server.loaded
      }
      const { port } = await ask<'open'>(server.child, { kind: 'open' })
      if (tally.rounds === 0) for (const key of GROUPS) await ask(server.child, { kind: 'create', key, subscribers: UIDS })
      // Not always: what is sent again right behind the start must be recognised as well.
      if (random.below(3) > 0) await look(server.child, ledger)
      const unanswered = ledger.unanswered()
      tally.unanswered += unanswered.length
      tally.ofThemStored += unanswered.filter((clientMsgNo) => ledger.has(clientMsgNo)).length
      const again = ledger.clients.map(({ uid }) => [...ledger.acked.values()].filter((sent) => sent.uid === uid && random.below(ledger.acked.size) < 40))
      tally.resentAcked += again.reduce((sum, { length }) => sum + length, 0)
      let acksLeft = 1 + random.below(1_200)
      const ended = acknowledged(() => --acksLeft === 0)
      const running = ledger.clients.map((client, index) => client.run(port, again[index]!))
      await ended
      const delayMs = random.below(3) * 10 // not always right behind an answer
      if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs))
      await killed(server.child)
      await Promise.all(running)
    }

    // A last life in which all that was never answered is sent again and answered, and an orderly end.
    await next.loaded
    const { port } = await ask<'open'>(next.child, { kind: 'open' })
    await look(next.child, ledger)
    const open = ledger.unanswered()
    const answered = acknowledged(() => open.every((clientMsgNo) => ledger.acked.has(clientMsgNo)))
    const running = ledger.clients.map((client) => client.run(port, []))
    await answered
    const exited = once(next.child, 'exit')
    next.child.send({ kind: 'close' } satisfies Ask)
    await Promise.all([...running, exited])
    await lookInto(path, ledger.clients, ledger.acked)
    const lived = ((performance.now() - startedAt) / 1000).toFixed(1)
    process.stdout.write(`crash.test.ts: ${ledger.acked.size} acknowledged, ${JSON.stringify(tally)}, ${lived} s\n`)
    expect(Math.min(ledger.acked.size, tally.rounds, tally.unanswered, tally.resentAcked)).toBeGreaterThan(0)
  }, budgetMs === Infinity ? rounds * 30_000 : 120_000)
})

/** What has come since the last look, by the engine itself. */
async function look(child: ChildProcess, ledger: Ledger): Promise<void> {
  for (const key of CHANNELS) {
    const { lastSeq, messages } = await ask<'range'>(child, { kind: 'range', key, startSeq: ledger.nextSeq(key) })
    ledger.take(key, lastSeq, messages)
  }
  ledger.check()
}

/** All of it, from the beginning, by the storage alone: what was seen in earlier rounds must still be there. */
async function lookInto(path: string, clients: readonly CrashClient[], acked: ReadonlyMap<string, Acked>): Promise<void> {
  const storage = levelStorage({ path })
  await storage.open()
  try {
    const whole = new Ledger(() => clients)
    for (const [clientMsgNo, each] of acked) whole.acked.set(clientMsgNo, each)
    for (const key of CHANNELS) {
      const lastSeq = await storage.messages.lastSeq(key)
      const stored: Stored[] = []
      for (let startSeq = 1; startSeq <= lastSeq; startSeq = stored.length + 1) {
        const page = await storage.messages.range(key, { startSeq, limit: 10_000 })
        if (page.length === 0) break
        stored.push(...page.map((message) => ({ ...message, text: Buffer.from(message.payload).toString() })))
      }
      whole.take(key, lastSeq, stored)
    }
    whole.check()
  } finally {
    await storage.close()
  }
}
