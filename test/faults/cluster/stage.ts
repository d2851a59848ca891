import { expect } from 'vitest'
import { personChannelID } from 'imengine'
import { seededRandom, type SeededRandom } from 'imengine/testing'
import { SERVERS_AGREE, until } from '../../adapters/nats/servers.ts'
import { NODE_COUNT, READY_LIMIT_MS, type Cluster } from './cluster.ts'
import { ClusterClient } from './cluster-clients.ts'
import { History, type Room } from './history.ts'

const SENDER_COUNT = 6
const LISTENER_COUNT = 6
const GROUP_COUNT = 4
const PERSON_COUNT = 4
const MESSAGES_PER_SECOND = 40
const PROGRESS_LIMIT_MS = 45_000
const DRAIN_LIMIT_MS = 45_000
const ARRIVE_LIMIT_MS = 20_000

/** One scenario: a workload over a cluster, what is done to the cluster meanwhile, and what came of it. */
export class Stage {
  readonly cluster: Cluster
  readonly random: SeededRandom
  readonly history: History
  readonly clients: readonly ClusterClient[]
  /** what the scenario has done to the cluster cannot be undone */
  isSpent = false
  readonly #schedule: string[] = []
  readonly #startedMs = performance.now()
  readonly #name: string
  #faultMs = 0
  #wake: () => void = () => undefined

  private constructor(cluster: Cluster, options: { readonly name: string; readonly seed: number }) {
    const { name, seed } = options
    this.cluster = cluster
    this.#name = name
    this.random = seededRandom(seed)
    const prefix = `${name.replace(/\W+/g, '-').slice(0, 40)}.`
    const senders = Array.from({ length: SENDER_COUNT }, (_, i) => `${prefix}s${i}`)
    const listeners = Array.from({ length: LISTENER_COUNT }, (_, i) => `${prefix}r${i}`)
    const groups = Array.from({ length: GROUP_COUNT }, (_, i): Room => ({
      key: { channelID: `${prefix}g${i}`, channelType: 2 },
      uids: [...senders, ...listeners.filter((_uid, index) => index % 2 === i % 2)],
    }))
    const persons = Array.from({ length: PERSON_COUNT }, (_, i): Room => {
      const uids = [senders[i]!, listeners[i]!]
      return { key: { channelID: personChannelID(uids[0]!, uids[1]!), channelType: 1 }, uids }
    })
    this.history = new History({ rooms: [...groups, ...persons], partitionCount: cluster.partitionCount })
    this.clients = [...senders, ...listeners].map((uid, index) => new ClusterClient({
      uid,
      history: this.history,
      ports: cluster.ports,
      firstNode: index % NODE_COUNT,
      random: seededRandom(this.random.below(2 ** 31)),
      messagesPerSecond: index < SENDER_COUNT ? MESSAGES_PER_SECOND : 0,
      rooms: [...groups, ...persons.filter(({ uids }) => uids.includes(uid))],
      onAck: () => this.#wake(),
    }))
  }

  /** The channels are there on every node, and everybody is chatting. */
  static async open(cluster: Cluster, options: { readonly name: string; readonly seed: number }): Promise<Stage> {
    await cluster.servers.ready(READY_LIMIT_MS)
    const stage = new Stage(cluster, options)
    const groups = stage.history.rooms.filter(({ key }) => key.channelType === 2)
    await Promise.all(groups.map(({ key, uids }, index) => cluster.ask(index % NODE_COUNT, { kind: 'create', key, subscribers: uids })))
    await cluster.settled()
    for (const client of stage.clients) client.start()
    await stage.acks(200)
    return stage
  }

  /** What is done now, for whoever has to find out what went wrong. */
  note(what: string): void {
    this.#schedule.push(`${Math.round(performance.now() - this.#startedMs)} ms: ${what}`)
  }

  /** From now on pauses count. */
  fault(what: string): void {
    this.note(what)
    this.#faultMs ||= performance.now()
  }

  /** Resolves when so many more messages have been acknowledged. */
  async acks(count: number): Promise<void> {
    const target = this.history.ackedCount + count
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.history.ackedCount} acknowledged, not ${target}, after ${PROGRESS_LIMIT_MS} ms`)), PROGRESS_LIMIT_MS)
      this.#wake = () => {
        if (this.history.ackedCount >= target) resolve()
      }
    }).finally(() => clearTimeout(timer))
  }

  /** The workload goes on meanwhile. */
  async hold(ms: number): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, ms))
  }

  /** Everything that was sent is acknowledged, the nodes have come to rest, everybody has got everything: then all is looked at. */
  async finish(bounds: { readonly pauseMs?: number } = {}): Promise<void> {
    const { history, cluster, clients } = this
    await this.acks(200)
    for (const client of clients) client.stopSending()
    this.note('nobody sends anything new')
    await until(() => clients.every(({ unansweredCount }) => unansweredCount === 0), DRAIN_LIMIT_MS, 'not everything is acknowledged')
    const pauses = history.pauses(this.#faultMs || performance.now())
    await cluster.settled()
    const logs = await cluster.logs(history.rooms)
    this.note('the nodes have come to rest')
    await until(() => history.missing(logs[0]!, 1).length === 0, ARRIVE_LIMIT_MS, 'not everybody has got everything').catch(() => undefined) // `check` says who and what
    history.check(logs)
    const moves = new Map<string, number>()
    for (const client of clients) for (const [why, count] of Object.entries(client.moves)) moves.set(why, (moves.get(why) ?? 0) + count)
    const parts = [
      `${history.ackedCount} acknowledged`,
      `${history.triedAgainCount} tries again`,
      `${history.sessionCount} connections`,
      `no SENDACK for ${pauses.anyMs} ms, of one partition for ${pauses.partitionMs} ms`,
      `moved for ${JSON.stringify(Object.fromEntries(moves))}`,
      `${Math.round(performance.now() - this.#startedMs)} ms`,
    ]
    process.stdout.write(`cluster.test.ts: ${this.#name}: ${parts.join(', ')}\n`)
    // A machine that is busy with other tests as well says nothing about time: it is told, and judged in the full run.
    const isJudged = process.env['CLUSTER_FULL'] === '1' && bounds.pauseMs !== undefined
    if (isJudged && pauses.anyMs > bounds.pauseMs) history.violate(`no SENDACK for ${pauses.anyMs} ms, bound ${bounds.pauseMs} ms`)
    if (history.violationCount === 0) return
    const uid = history.missing(logs[0]!, 1)[0]?.split(' ')[0]
    if (uid !== undefined) this.note(`${uid} was connected: ${history.sessionsOf(uid).join(', ')}`)
    this.note(`the nodes: ${JSON.stringify(await cluster.statuses())}`)
    expect.fail(this.report(`${history.violationCount} violations`))
  }

  /**
   * Servers of 2.9 may have different logs when it is over that they were parted, which nobody can mend from here. Then the nodes
   * must say so, and no more is asked of them; that it happened is told.
   */
  async whileParted(action: () => Promise<void>): Promise<void> {
    const haveDiverged = async (): Promise<boolean> =>
      (await this.cluster.statuses()).some(({ partitions }) => partitions.some(({ stopped }) => stopped === 'IM_LOG_DIVERGED'))
    try {
      await action()
    } catch (error) {
      if (SERVERS_AGREE || !(await haveDiverged())) throw error
      process.stdout.write(`cluster.test.ts: ${this.#name}: THE SERVERS HAVE DIVERGED, and the nodes say so\n`)
      this.isSpent = true
    }
  }

  async leave(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.leave()))
  }

  /** What a reader needs to find out why. */
  report(why: string): string {
    const { history } = this
    return [why, `seed ${this.random.seed}`, ...history.violations.slice(0, 8), 'schedule:', ...this.#schedule].join('\n  ')
  }
}
