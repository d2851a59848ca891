/** Senders and receivers of one job: a closed loop with a window, or an open one at fixed times; both are checked all along. */
import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { receiverUID, senderUID, type Job, type Result } from '../wire.ts'
import { openClient, type Client, type Role } from './client.ts'
import { Histogram } from './histogram.ts'
import { DeliveryCheck, Sender } from './sender.ts'

/** Told when the span that counts begins and when it ends. */
export interface Span {
  begin(): void
  end(): void
}

const OPEN_AT_ONCE = 50
const WARM_UP_LIMIT_MS = 30_000
const TARGET_TABLE_COUNT = 1 << 14

/** @throws when anything was lost, came twice or out of order, was refused in a closed loop, or a connection broke */
export async function runTraffic(job: Job, span: Span): Promise<Result> {
  const traffic = new Traffic(job)
  try {
    await traffic.open()
    return await Promise.race([traffic.run(span), traffic.failed])
  } finally {
    traffic.close()
  }
}

class Traffic {
  /** rejects with the first thing that goes wrong, never resolves */
  readonly failed: Promise<never>
  readonly #job: Job
  readonly #clients: Client[] = []
  readonly #senders: Sender[] = []
  readonly #checks: DeliveryCheck[] = []
  readonly #payload: Buffer
  readonly #ackTimes = new Histogram()
  readonly #deliveryTimes = new Histogram()
  readonly #lateTimes = new Histogram()
  readonly #targets: Uint16Array
  readonly #isClosedLoop: boolean
  readonly #deliveriesPerMessage: number
  #fail: (error: Error) => void = () => undefined
  #nowMs = 0
  /** What was sent before does not count towards the times. */
  #beganAtMs = Infinity
  #ackedCount = 0
  #refusedCount = 0
  #deliveredCount = 0
  #longestPauseMs = 0
  #isStopped = false

  constructor(job: Job) {
    this.#job = job
    this.#isClosedLoop = job.window > 0
    this.#payload = Buffer.from(randomBytes(job.payloadBytes).toString('base64').slice(0, job.payloadBytes))
    this.#deliveriesPerMessage = job.topology === 'group' ? job.senderCount + job.receiverCount - 1 : 1
    this.#targets = targetTable(job)
    this.failed = new Promise((_, reject) => {
      this.#fail = reject
    })
    this.failed.catch(() => undefined)
  }

  async open(): Promise<void> {
    const { kind, senderCount, receiverCount, topology, ports = [this.#job.port] } = this.#job
    const roles: Role[] = []
    // A receiver and its sender next to each other: the relay joins those that come together.
    for (let index = 0; index < Math.max(senderCount, receiverCount); index++) {
      if (index < receiverCount) roles.push({ uid: receiverUID(index), senderIndex: -1, node: index + 1 })
      if (index < senderCount) roles.push({ uid: senderUID(index), senderIndex: index, node: index })
    }
    const channelCount = topology === 'group' ? 1 : senderCount
    const atOnce = kind === 'relay' ? 1 : OPEN_AT_ONCE
    const senders = roles.filter(({ senderIndex }) => senderIndex !== -1)
    this.#senders.push(...senders.map((_, index) => new Sender(index, ringCount(this.#job))))
    for (let first = 0; first < roles.length; first += atOnce) {
      const opening = roles.slice(first, first + atOnce).map((role) => openClient({ job: { ...this.#job, port: ports[role.node % ports.length]! }, payload: this.#payload, role, fail: this.#fail }))
      const clients = await Promise.race([Promise.all(opening), this.failed])
      this.#clients.push(...clients)
    }
    for (const [index, role] of roles.entries()) {
      const check = new DeliveryCheck(role.uid, { channelCount, senderCount }, role.senderIndex === -1)
      this.#checks.push(check)
      this.#join(this.#clients[index]!, role, check)
    }
  }

  async run(span: Span): Promise<Result> {
    const { warmUpMs, warmUpCount = 1, measureMs } = this.#job
    const clientOf = (index: number): Client => this.#clients[this.#roleIndex(index)]!
    const stopSending = this.#isClosedLoop ? this.#startClosed(clientOf) : this.#startOpen(clientOf)
    await wait(warmUpMs)
    // On a machine that is busy with other things, the time may be over before anything has moved.
    for (const deadlineMs = performance.now() + WARM_UP_LIMIT_MS; this.#ackedCount < warmUpCount; await wait(5)) {
      if (performance.now() > deadlineMs) throw new Error(`only ${this.#ackedCount} messages were acknowledged in the warm-up`)
    }
    const cpu = process.cpuUsage()
    const from = performance.now()
    const before = { acked: this.#ackedCount, delivered: this.#deliveredCount, refused: this.#refusedCount }
    this.#beganAtMs = from
    span.begin()
    await wait(measureMs)
    const { user, system } = process.cpuUsage(cpu)
    const seconds = (performance.now() - from) / 1000
    const acked = this.#ackedCount - before.acked
    const delivered = this.#deliveredCount - before.delivered
    const refusedCount = this.#refusedCount - before.refused
    span.end()
    stopSending()
    // An open loop tells how far a server has fallen behind; a closed one has nothing to tell then.
    if (this.#isClosedLoop && (acked === 0 || delivered === 0)) throw new Error('not one message came through in the whole span: it is too short for this machine')
    await this.#drain()
    const ackMs = this.#ackTimes.quantiles()
    return {
      offeredPerSecond: this.#job.ratePerSecond ?? acked / seconds,
      messagesPerSecond: Math.min(acked, delivered / this.#deliveriesPerMessage) / seconds,
      deliveriesPerSecond: delivered / seconds,
      refusedCount,
      seconds,
      loadCPU: (user + system) / 1e6 / seconds,
      ackMs,
      deliveryMs: this.#deliveryTimes.quantiles(),
      longestPauseMs: this.#longestPauseMs,
      lateMs: this.#lateTimes.quantiles(),
      checkedMessageCount: sum(this.#senders, ({ sentCount }) => sentCount) - this.#refusedCount,
      checkedDeliveryCount: sum(this.#checks, ({ deliveredCount }) => deliveredCount),
    }
  }

  close(): void {
    this.#isStopped = true
    for (const { link } of this.#clients) link.close()
  }

  /** Where sender `index` stands among the clients. */
  #roleIndex(index: number): number {
    const { receiverCount } = this.#job
    return index < receiverCount ? 2 * index + 1 : receiverCount + index
  }

  #join(client: Client, { senderIndex }: Role, check: DeliveryCheck): void {
    const { link } = client
    const { topology } = this.#job
    const sender = this.#senders[senderIndex]
    let dueCount = 0
    let ackedAtMs = 0
    link.onChunk = () => {
      this.#nowMs = performance.now()
    }
    link.afterChunk = () => {
      if (dueCount > 0) {
        if (!this.#isStopped) for (; dueCount > 0; dueCount--) this.#send(client, sender!, this.#nowMs)
        dueCount = 0
      }
      link.flush()
    }
    client.onAck = (number) => {
      const sentAtMs = sender!.acknowledged(number)
      this.#ackedCount++
      if (sentAtMs >= this.#beganAtMs) this.#ackTimes.add(this.#nowMs - sentAtMs)
      this.#longestPauseMs = Math.max(this.#longestPauseMs, this.#nowMs - Math.max(ackedAtMs, this.#beganAtMs))
      ackedAtMs = this.#nowMs
      if (this.#isClosedLoop) dueCount++
    }
    client.onRefusal = (number) => {
      if (this.#isClosedLoop) throw new Error('a SEND was refused for its rate')
      sender!.acknowledged(number)
      this.#refusedCount++
    }
    client.onDelivery = (from, number, seq) => {
      if (seq > 0) check.deliveredAt(topology === 'group' ? 0 : from, seq, from, number)
      else check.delivered(from, number)
      this.#deliveredCount++
      const sentAtMs = this.#senders[from]!.sentAt(number)
      if (sentAtMs >= this.#beganAtMs) this.#deliveryTimes.add(this.#nowMs - sentAtMs)
    }
  }

  #send(client: Client, sender: Sender, atMs: number): void {
    const target = this.#targets.length === 0 ? sender.index : this.#targets[(sender.nextNumber + sender.index * 7_919) & (TARGET_TABLE_COUNT - 1)]!
    client.send(sender, target)
    sender.sent(atMs)
  }

  #startClosed(clientOf: (index: number) => Client): () => void {
    const nowMs = performance.now()
    for (const sender of this.#senders) {
      const client = clientOf(sender.index)
      for (let count = 0; count < this.#job.window; count++) this.#send(client, sender, nowMs)
      client.link.flush()
    }
    return () => {
      this.#isStopped = true
    }
  }

  /** Every run of messages has its time, whatever becomes of the ones before: what a server holds up counts in full. */
  #startOpen(clientOf: (index: number) => Client): () => void {
    const { ratePerSecond = 1, batchCount = 1, senderCount } = this.#job
    const intervalMs = (1000 * batchCount) / ratePerSecond
    const startMs = performance.now()
    let batch = 0
    const tick = (): void => {
      if (this.#isStopped) return
      try {
        const nowMs = performance.now()
        for (let atMs = startMs + batch * intervalMs; atMs <= nowMs; atMs = startMs + ++batch * intervalMs) {
          const sender = this.#senders[batch % senderCount]!
          const client = clientOf(sender.index)
          for (let count = 0; count < batchCount; count++) this.#send(client, sender, atMs)
          client.link.flush()
          if (atMs >= this.#beganAtMs) this.#lateTimes.add(performance.now() - atMs)
        }
        setTimeout(tick, 1)
      } catch (error) {
        this.#fail(error as Error)
      }
    }
    tick()
    return () => {
      this.#isStopped = true
    }
  }

  /** Nothing may be missing at the end. */
  async #drain(): Promise<void> {
    const deadlineMs = performance.now() + this.#job.drainMs
    for (;;) {
      const underWay = sum(this.#senders, ({ underWayCount }) => underWayCount)
      const sent = sum(this.#senders, ({ sentCount }) => sentCount) - this.#refusedCount
      const delivered = sum(this.#checks, ({ deliveredCount }) => deliveredCount)
      const expected = sent * this.#deliveriesPerMessage
      if (delivered > expected) throw new Error(`${delivered} deliveries of ${expected}: some came twice`)
      if (underWay === 0 && delivered === expected) return
      if (performance.now() > deadlineMs) {
        throw new Error(`lost: ${underWay} of ${sent} messages were never acknowledged, ${expected - delivered} of ${expected} never delivered`)
      }
      await wait(5)
    }
  }
}

/** What a sender may have under way, with room for deliveries that come long after the acknowledgement. */
function ringCount({ window }: Job): number {
  return window === 0 ? 16_384 : Math.max(1_024, 2 ** Math.ceil(Math.log2(window * 16)))
}

/** Receivers in the order in which a sender takes them; empty when each has its own. */
function targetTable({ topology, spread = 'own', receiverCount }: Job): Uint16Array {
  if (topology !== 'matrix' || spread === 'own') return new Uint16Array(0)
  const table = new Uint16Array(TARGET_TABLE_COUNT)
  const weights = Array.from({ length: receiverCount }, (_, rank) => (spread === 'zipf' ? 1 / (rank + 1) : 1))
  const total = weights.reduce((a, b) => a + b, 0)
  let state = 42
  for (let index = 0; index < table.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    let rest = (state / 2 ** 32) * total
    let target = 0
    while (target < receiverCount - 1 && rest >= weights[target]!) rest -= weights[target++]!
    table[index] = target
  }
  return table
}

export function sum<T>(items: readonly T[], value: (item: T) => number): number {
  let total = 0
  for (const item of items) total += value(item)
  return total
}

export function wait(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs))
}
