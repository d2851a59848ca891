import { connect } from 'node:net'
import { personChannelID, ReasonCode, type ChannelKey } from 'imengine'
import { TestClient, type SeededRandom } from 'imengine/testing'
import type { History, Room, Sent, Session } from './history.ts'

export interface ClusterClientOptions {
  readonly uid: string
  readonly history: History
  /** where the nodes are reached now; undefined for one that is away */
  readonly ports: () => readonly (number | undefined)[]
  /** the node it goes to first */
  readonly firstNode: number
  readonly random: SeededRandom
  /** none for one that only listens */
  readonly messagesPerSecond: number
  /** what it sends to */
  readonly rooms: readonly Room[]
  readonly onAck: () => void
}

/** messages on their way at once */
const WINDOW = 24
const LOGIN_LIMIT_MS = 3_000
/** As SDKs do, only sooner: a node that says nothing for so long is left for another one. */
const PING_EVERY_MS = 1_000
const SILENCE_LIMIT_MS = 3_000
/** longer than an engine takes to answer 18 */
const SENDACK_LIMIT_MS = 7_000
const PAUSE_MS = 100
/** SENDACK: not now, or not known. Whatever else it says would be a verdict on a message that nothing is wrong with. */
const TRY_AGAIN: ReadonlySet<number> = new Set([ReasonCode.SystemError, ReasonCode.NodeNotMatch, ReasonCode.RateLimit])

/**
 * One user over a whole scenario: goes from node to node as connections end, acknowledges what it receives, and sends at its pace.
 * What has not been acknowledged it sends again, as it was, through another node.
 */
export class ClusterClient {
  readonly uid: string
  readonly #options: ClusterClientOptions
  /** to be sent once more */
  #again: Sent[] = []
  #onTheirWayCount = 0
  #count = 0
  #turn = false
  #isSending: boolean
  #hasLeft = false
  #node: number
  #end: (() => void) | undefined
  #running: Promise<void> | undefined
  /** by the code of CONNACK or SENDACK, or what else it was that made it go elsewhere */
  readonly moves: Record<string, number> = {}

  constructor(options: ClusterClientOptions) {
    this.#options = options
    this.uid = options.uid
    this.#node = options.firstNode
    this.#isSending = options.messagesPerSecond > 0
  }

  start(): void {
    this.#running = this.#run()
  }

  /** Nothing new from now on; what is not acknowledged is sent until it is. */
  stopSending(): void {
    this.#isSending = false
  }

  get unansweredCount(): number {
    return this.#again.length + this.#onTheirWayCount
  }

  async leave(): Promise<void> {
    this.#hasLeft = true
    this.#end?.()
    await this.#running
  }

  async #run(): Promise<void> {
    while (!this.#hasLeft) {
      const port = this.#options.ports()[this.#node]
      if (port !== undefined) await this.#visit(port)
      if (this.#hasLeft) return
      this.#node = (this.#node + 1) % this.#options.ports().length
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
  }

  /** One connection, until it ends or there is a reason to go elsewhere. Never rejects. */
  async #visit(port: number): Promise<void> {
    const { uid, history } = this.#options
    const session = history.session(uid, this.#node)
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    const closed = new Promise<void>((resolve) => socket.on('error', () => undefined).on('close', () => resolve()))
    const client: TestClient = new TestClient({
      write: (bytes) => void socket.write(bytes),
      onData: (listener) =>
        void socket.on('data', (chunk) => {
          heardMs = performance.now()
          const before = client.messages.length
          listener(chunk)
          for (const message of client.messages.slice(before)) {
            const { channelID, channelType, messageSeq, messageID, fromUID, clientMsgNo, text } = message
            const key: ChannelKey = channelType === 1 ? { channelType, channelID: personChannelID(uid, channelID) } : { channelID, channelType }
            history.received(session, { key, messageSeq, messageID: String(messageID), fromUID, clientMsgNo, text })
          }
        }),
      closed,
    })
    let heardMs = performance.now()
    const move = (why: string): void => {
      if (socket.destroyed) return
      this.moves[why] = (this.moves[why] ?? 0) + 1
      socket.destroy()
    }
    this.#end = () => socket.destroy()
    const loginLimit = setTimeout(() => move('no CONNACK'), LOGIN_LIMIT_MS)
    try {
      const { reasonCode } = await client.connect({ uid, plaintext: true })
      clearTimeout(loginLimit)
      if (reasonCode === ReasonCode.Success) await this.#stay(client, session, closed, move, () => heardMs)
      else move(`CONNACK ${reasonCode}`)
    } catch {
      // It has ended: on to the next.
    }
    clearTimeout(loginLimit)
    socket.destroy()
    await closed
  }

  async #stay(client: TestClient, session: Session, closed: Promise<void>, move: (why: string) => void, heardMs: () => number): Promise<void> {
    /** of what is on its way */
    const sentMs = new Map<string, number>()
    const ping = setInterval(() => {
      const nowMs = performance.now()
      client.ping().catch(() => undefined)
      if (nowMs - heardMs() > SILENCE_LIMIT_MS) move('silence')
      const [oldestMs = nowMs] = sentMs.values()
      if (nowMs - oldestMs > SENDACK_LIMIT_MS) move('no SENDACK')
    }, PING_EVERY_MS)
    const { messagesPerSecond } = this.#options
    const pace = messagesPerSecond === 0 ? undefined : setInterval(() => this.#sendSome(client, session, sentMs, move), 1_000 / messagesPerSecond)
    await closed
    clearInterval(ping)
    clearInterval(pace)
  }

  #sendSome(client: TestClient, session: Session, sentMs: Map<string, number>, move: (why: string) => void): void {
    if (client.isClosed || this.#onTheirWayCount >= WINDOW) return
    // By turns, so that a channel in which nothing goes does not keep everything from the others.
    const isNewOnesTurn = this.#isSending && (this.#turn = !this.#turn)
    const sent = (isNewOnesTurn ? undefined : this.#again.shift()) ?? (this.#isSending ? this.#invent() : undefined)
    if (sent === undefined) return
    const { history, onAck } = this.#options
    const { channelID, clientMsgNo, key, text } = sent
    history.sent(session, sent)
    sentMs.set(clientMsgNo, performance.now())
    this.#onTheirWayCount++
    const answered = client.send({ channelID, channelType: key.channelType, clientMsgNo, payload: text })
    void answered.then(
      ({ reasonCode, messageID, messageSeq }) => {
        this.#onTheirWayCount--
        sentMs.delete(clientMsgNo)
        if (reasonCode === ReasonCode.Success) {
          history.acked(session, sent, String(messageID), messageSeq)
          return onAck()
        }
        if (!TRY_AGAIN.has(reasonCode)) history.violate(`${clientMsgNo}: SENDACK ${reasonCode}`)
        this.#again.push(sent)
        move(`SENDACK ${reasonCode}`)
      },
      () => {
        this.#onTheirWayCount--
        this.#again.push(sent)
      },
    )
  }

  #invent(): Sent {
    const { uid, random, rooms } = this.#options
    const clientMsgNo = `${uid}-${++this.#count}`
    const { key, uids } = random.pick(rooms)
    const channelID = key.channelType === 1 ? uids.find((peer) => peer !== uid)! : key.channelID
    return { uid, clientMsgNo, key, channelID, text: `${clientMsgNo} ${'.'.repeat(random.below(200))}` }
  }
}
