/**
 * Messages at one rate between pairs that stay, and beside them pairs whose ends log in and leave all the time, in order or by a
 * reset, and users who come once. Nothing may be lost, come out of order, or come twice but for what a client had no time to acknowledge before it left.
 */
import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { receiverUID, senderUID, type Job, type SoakJob, type SoakProgress, type SoakResult } from '../wire.ts'
import { openClient, type Client } from './client.ts'
import { Histogram } from './histogram.ts'
import { Newcomers } from './newcomers.ts'
import { DeliveryCheck, Sender } from './sender.ts'
import { sum, wait } from './traffic.ts'

/** How many messages of one sender may be told apart; a pause of the server of seconds must not look like a loss. */
const RING_COUNT = 32_768
const OPEN_AT_ONCE = 25
/** messages of one stay of a sender that comes and goes: fewer than are replayed at one login, should nobody be there to get them */
const SENT_PER_STAY = 10
const MAX_UNSEEN_COUNT = 100
const STAY_MS = { least: 100, most: 1_500 }

/** @throws when anything was lost, came twice or out of order, or a connection broke */
export async function runSoak(job: SoakJob, tell: (progress: SoakProgress) => void): Promise<SoakResult> {
  const soak = new Soak(job)
  try {
    return await Promise.race([soak.run(tell), soak.failed])
  } finally {
    soak.close()
  }
}

/** What a receiver that comes and goes has seen of the one sender that writes to it, over all its stays. */
export class ComingAndGoing {
  /** the highest number of the channel that has come */
  lastSeq = 0
  deliveredCount = 0
  repeatedCount = 0
  readonly #name: string
  /** in this stay; 0 at its beginning */
  #lastOfStay = 0

  constructor(name: string) {
    this.#name = name
  }

  begins(): void {
    this.#lastOfStay = 0
  }

  /** In a stay numbers follow one another, and its first is new or one that may not have been acknowledged in an earlier stay. */
  delivered(seq: number): void {
    const isNext = this.#lastOfStay === 0 ? seq <= this.lastSeq + 1 : seq === this.#lastOfStay + 1
    if (!isNext) throw new Error(`${this.#name} was delivered seq ${seq} after ${this.#lastOfStay} in this stay, and ${this.lastSeq} before`)
    this.#lastOfStay = seq
    if (seq <= this.lastSeq) {
      this.repeatedCount++
      return
    }
    this.lastSeq = seq
    this.deliveredCount++
  }
}

class Soak {
  /** rejects with the first thing that goes wrong, never resolves */
  readonly failed: Promise<never>
  readonly #job: SoakJob
  readonly #payload: Buffer
  readonly #clients = new Set<Client>()
  /** those that stay first, then those that come and go */
  readonly #senders: Sender[]
  readonly #checks: DeliveryCheck[]
  readonly #visitors: ComingAndGoing[]
  readonly #newcomers: Newcomers
  readonly #ackTimes = new Histogram()
  readonly #deliveryTimes = new Histogram()
  #fail: (error: Error) => void = () => undefined
  #refusedCount = 0
  #loginCount = 0
  #isOver = false
  #beganAtMs = 0

  constructor(job: SoakJob) {
    this.#job = job
    const { pairCount, churnCount } = job
    this.#payload = Buffer.from(randomBytes(job.payloadBytes).toString('base64').slice(0, job.payloadBytes))
    this.#senders = Array.from({ length: pairCount + churnCount }, (_, index) => new Sender(index, RING_COUNT))
    this.#checks = Array.from({ length: pairCount }, (_, index) => new DeliveryCheck(receiverUID(index), { channelCount: 1, senderCount: pairCount }, true))
    this.#visitors = Array.from({ length: churnCount }, (_, index) => new ComingAndGoing(receiverUID(pairCount + index)))
    this.failed = new Promise((_, reject) => {
      this.#fail = reject
    })
    this.failed.catch(() => undefined)
    this.#newcomers = new Newcomers(job, this.#payload, this.#fail)
  }

  async run(tell: (progress: SoakProgress) => void): Promise<SoakResult> {
    const { pairCount, churnCount, lastsMs, tellEveryMs } = this.#job
    const staying: Client[] = []
    for (let first = 0; first < pairCount; first += OPEN_AT_ONCE) {
      const indexes = Array.from({ length: Math.min(OPEN_AT_ONCE, pairCount - first) }, (_, at) => first + at)
      await Promise.all(indexes.map((index) => this.#openReceiver(index)))
      staying.push(...(await Promise.all(indexes.map((index) => this.#openSender(index)))))
    }
    this.#beganAtMs = performance.now()
    const stopTelling = this.#tellNowAndThen(tell, tellEveryMs)
    const stop = this.#startSending(staying)
    const visits = Array.from({ length: churnCount }, (_, at) => [this.#sendNowAndThen(pairCount + at), this.#readNowAndThen(at)]).flat()
    visits.push(this.#newcomers.run().catch(this.#fail))
    try {
      await wait(lastsMs)
      this.#isOver = true
      this.#newcomers.end()
      stop()
      await Promise.all(visits)
      await this.#drain()
    } finally {
      stopTelling()
      stop()
    }
    return { ...this.#progress, ackMs: this.#ackTimes.quantiles(), deliveryMs: this.#deliveryTimes.quantiles() }
  }

  close(): void {
    this.#isOver = true
    this.#newcomers.close()
    for (const { link } of this.#clients) link.close()
  }

  get #progress(): SoakProgress {
    return {
      atSeconds: (performance.now() - this.#beganAtMs) / 1000,
      sentCount: sum(this.#senders, ({ sentCount }) => sentCount),
      refusedCount: this.#refusedCount,
      deliveredCount: sum(this.#checks, ({ deliveredCount }) => deliveredCount) + sum(this.#visitors, ({ deliveredCount }) => deliveredCount),
      repeatedCount: sum(this.#visitors, ({ repeatedCount }) => repeatedCount),
      loginCount: this.#loginCount + this.#newcomers.count,
      newcomerCount: this.#newcomers.count,
      underWayCount: sum(this.#senders, ({ underWayCount }) => underWayCount),
    }
  }

  async #open(uid: string, onDelivery: Client['onDelivery']): Promise<Client> {
    const { port, transport, encryption, payloadBytes } = this.#job
    const job: Job = {
      kind: 'engine', transport, encryption, port, topology: 'pairs', senderCount: 0, receiverCount: 0, payloadBytes, window: 0, warmUpMs: 0, measureMs: 0, drainMs: 0,
    }
    const client = await openClient({ job, payload: this.#payload, role: { uid, senderIndex: -1, node: 0 }, fail: this.#fail })
    client.onDelivery = onDelivery
    client.link.afterChunk = () => client.link.flush()
    this.#clients.add(client)
    this.#loginCount++
    return client
  }

  async #openSender(index: number): Promise<Client> {
    const sender = this.#senders[index]!
    const client = await this.#open(senderUID(index), () => {
      throw new Error(`${senderUID(index)}, to whom nobody writes, was delivered something`)
    })
    client.onAck = (number) => this.#ackTimes.add(performance.now() - sender.acknowledged(number))
    client.onRefusal = (number) => {
      sender.acknowledged(number)
      sender.refusedCount++
      this.#refusedCount++
    }
    return client
  }

  #openReceiver(index: number): Promise<Client> {
    const check = this.#checks[index]!
    return this.#open(receiverUID(index), (from, number, seq) => {
      check.deliveredAt(0, seq, from, number)
      this.#deliveryTimes.add(performance.now() - this.#senders[from]!.sentAt(number))
    })
  }

  /** @returns a function that ends it */
  #tellNowAndThen(tell: (progress: SoakProgress) => void, everyMs: number): () => void {
    let timer: NodeJS.Timeout
    const tellLater = (): void => {
      timer = setTimeout(() => {
        tell(this.#progress)
        tellLater()
      }, everyMs * (0.5 + Math.random()))
    }
    tellLater()
    return () => clearTimeout(timer)
  }

  /** Every run of messages has its time, whatever becomes of the ones before. */
  #startSending(clients: readonly Client[]): () => void {
    const { ratePerSecond, batchCount, pairCount } = this.#job
    const intervalMs = (1000 * batchCount) / ratePerSecond
    const startMs = performance.now()
    let batch = 0
    let isStopped = false
    const tick = (): void => {
      if (isStopped) return
      try {
        const nowMs = performance.now()
        for (let atMs = startMs + batch * intervalMs; atMs <= nowMs; atMs = startMs + ++batch * intervalMs) {
          this.#send(clients[batch % pairCount]!, batch % pairCount, batchCount, atMs)
        }
        setTimeout(tick, 1)
      } catch (error) {
        this.#fail(error as Error)
      }
    }
    tick()
    return () => {
      isStopped = true
    }
  }

  #send(client: Client, index: number, count: number, atMs: number): void {
    const sender = this.#senders[index]!
    for (let sent = 0; sent < count; sent++) {
      client.send(sender, index)
      sender.sent(atMs)
    }
    client.link.flush()
  }

  /** A sender that logs in, writes, waits for its answers and leaves. */
  async #sendNowAndThen(index: number): Promise<void> {
    const sender = this.#senders[index]!
    const visitor = this.#visitors[index - this.#job.pairCount]!
    await wait(stayMs())
    while (!this.#isOver) {
      const client = await this.#openSender(index)
      // The receiver may be away for long: what it has missed stays less than what is replayed at one login.
      if (sender.sentCount - sender.refusedCount - visitor.lastSeq < MAX_UNSEEN_COUNT) this.#send(client, index, SENT_PER_STAY, performance.now())
      await wait(stayMs())
      for (const endMs = performance.now() + this.#job.drainMs; sender.underWayCount > 0; await wait(5)) {
        if (performance.now() > endMs) throw new Error(`lost: ${sender.underWayCount} messages of ${senderUID(index)} were never acknowledged`)
      }
      this.#leave(client)
      await wait(stayMs())
    }
  }

  /** A receiver that logs in, reads and acknowledges what comes for a while, and leaves in the middle of it. */
  async #readNowAndThen(at: number): Promise<void> {
    const visitor = this.#visitors[at]!
    while (!this.#isOver) {
      const client = await this.#visit(at)
      await wait(stayMs())
      this.#leave(client)
      await wait(stayMs() / 2)
    }
    visitor.begins()
  }

  #visit(at: number): Promise<Client> {
    const visitor = this.#visitors[at]!
    visitor.begins()
    return this.#open(receiverUID(this.#job.pairCount + at), (_from, _number, seq) => visitor.delivered(seq))
  }

  #leave(client: Client): void {
    this.#clients.delete(client)
    client.link.close()
  }

  /** Nothing may be missing at the end: who comes and goes comes once more. */
  async #drain(): Promise<void> {
    await Promise.all(this.#visitors.map((_, at) => this.#visit(at)))
    const endMs = performance.now() + this.#job.drainMs
    for (;;) {
      const { sentCount, refusedCount, deliveredCount, underWayCount } = this.#progress
      const expected = sentCount - refusedCount
      if (deliveredCount > expected) throw new Error(`${deliveredCount} deliveries of ${expected}: some came twice`)
      if (underWayCount === 0 && deliveredCount === expected) return
      if (performance.now() > endMs) {
        throw new Error(`lost: ${underWayCount} of ${sentCount} messages were never acknowledged, ${expected - deliveredCount} of ${expected} never delivered`)
      }
      await wait(5)
    }
  }
}

/** Between the least and the most, so that logins do not fall together. */
function stayMs(): number {
  return STAY_MS.least + Math.random() * (STAY_MS.most - STAY_MS.least)
}
