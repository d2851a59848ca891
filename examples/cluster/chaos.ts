import { Bot } from './bot.ts'
import type { Cluster } from './cluster.ts'

export interface ChaosOptions {
  /** in each one server and one node are killed and started again; the next ones in the next */
  readonly rounds: number
  /** what is going on, for people */
  readonly say: (text: string) => void
}

export interface ChaosResult {
  readonly sentCount: number
  readonly acknowledgedCount: number
  /** different messages that have come to the other bot */
  readonly receivedCount: number
  /** how often one came that had come already: a client that has not acknowledged a message before its node died gets it again */
  readonly repeatedCount: number
  /** acknowledged, and not in the history of every node under the number that was told, or never received */
  readonly lostCount: number
  readonly longestPauseMs: number
}

/** What each bot has to get through before the next thing breaks. */
const STEP_COUNT = 20
const STEP_LIMIT_MS = 60_000
const SETTLE_LIMIT_MS = 20_000

/** Two bots chat, each acknowledged message is noted, and servers and nodes are killed and started again in turn. */
export async function runChaos(cluster: Cluster, { rounds, say }: ChaosOptions): Promise<ChaosResult> {
  const names = ['Bot One', 'Bot Two'].map((name) => `${name} ${Date.now()}`)
  const bots = names.map((name, index) => new Bot({ name, ports: cluster.ports }, index))
  const [one, two] = bots as [Bot, Bot]
  for (const bot of bots) await bot.signIn()
  // Their conversation begins with a login of each, from which what they miss is counted.
  for (const bot of bots) await bot.come()
  one.talkTo(two.uid)
  two.talkTo(one.uid)
  await progress(bots)
  for (let round = 0; round < rounds; round++) {
    const index = round % cluster.ports.length
    say(`round ${round + 1} of ${rounds}: server ${index + 1} is killed`)
    await cluster.servers.killServer(index)
    await progress(bots)
    cluster.servers.startServer(index)
    await cluster.servers.ready()
    say(`  it is back; node ${index + 1} is killed`)
    await cluster.killNode(index)
    await progress(bots)
    await cluster.startNode(index)
    await progress(bots)
    say(`  it is back; ${bots.reduce((sum, { acknowledged }) => sum + acknowledged.size, 0)} messages are acknowledged so far`)
  }
  await Promise.all(bots.map((bot) => bot.stop()))
  await settled(one, two)
  const lost = new Set([...missing(one, two), ...missing(two, one)])
  for (const port of cluster.ports) {
    const history = await one.historyOf(port, two.uid)
    for (const bot of bots) for (const [clientMsgNo, messageSeq] of bot.acknowledged) if (history.get(clientMsgNo) !== messageSeq) lost.add(clientMsgNo)
  }
  for (const bot of bots) bot.close()
  const total = (count: (bot: Bot) => number): number => bots.reduce((sum, bot) => sum + count(bot), 0)
  return {
    sentCount: total(({ sentCount }) => sentCount),
    acknowledgedCount: total(({ acknowledged }) => acknowledged.size),
    receivedCount: total(({ received }) => received.size),
    repeatedCount: total(({ received }) => [...received.values()].reduce((sum, count) => sum + count - 1, 0)),
    lostCount: lost.size,
    longestPauseMs: Math.round(Math.max(...bots.map(({ longestPauseMs }) => longestPauseMs))),
  }
}

export function describeResult(result: ChaosResult): string {
  return [
    `sent           ${result.sentCount}`,
    `acknowledged   ${result.acknowledgedCount}`,
    `received       ${result.receivedCount}`,
    `repeated       ${result.repeatedCount}`,
    `lost           ${result.lostCount}`,
    `longest pause  ${result.longestPauseMs} ms between two acknowledgements`,
  ].join('\n')
}

/** Resolves when each bot has had some more acknowledged. */
async function progress(bots: readonly Bot[]): Promise<void> {
  const wanted = bots.map(({ acknowledged }) => acknowledged.size + STEP_COUNT)
  await until(() => bots.every(({ acknowledged }, index) => acknowledged.size >= wanted[index]!), STEP_LIMIT_MS, 'the bots do not get on')
}

/** What was acknowledged has come to the other one, if need be at a login. */
async function settled(one: Bot, two: Bot): Promise<void> {
  const isComplete = (): boolean => missing(one, two).length + missing(two, one).length === 0
  const deadlineMs = performance.now() + SETTLE_LIMIT_MS
  while (!isComplete() && performance.now() < deadlineMs) {
    await until(isComplete, 3_000).catch(() => undefined)
    if (!isComplete()) await Promise.all([one.come(), two.come()])
  }
}

function missing(from: Bot, to: Bot): string[] {
  return [...from.acknowledged.keys()].filter((clientMsgNo) => !to.received.has(clientMsgNo))
}

async function until(holds: () => boolean, limitMs: number, complaint = 'it has not happened'): Promise<void> {
  const deadlineMs = performance.now() + limitMs
  while (!holds()) {
    if (performance.now() > deadlineMs) throw new Error(`${complaint} within ${limitMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
