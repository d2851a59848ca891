import { connect } from 'node:net'
import { personChannelID, type ChannelKey } from 'imengine'
import { TestClient, type SeededRandom } from 'imengine/testing'

/** A message on its way: what a client knows of it. */
export interface Sent {
  readonly uid: string
  readonly clientMsgNo: string
  /** where the engine keeps it */
  readonly key: ChannelKey
  /** as the client names it */
  readonly channelID: string
  readonly text: string
}

export interface Acked extends Sent {
  readonly messageID: string
  readonly messageSeq: number
}

export const GROUPS = ['red', 'blue'].map((channelID): ChannelKey => ({ channelID, channelType: 2 }))
export const UIDS = Array.from({ length: 8 }, (_, index) => `u${index}`)
const WINDOW = 24

/** One user over all rounds: sends without end while connected, and remembers what has become of each message. */
export class CrashClient {
  readonly uid: string
  /** by clientMsgNo: sent, and no answer has come */
  readonly unanswered = new Map<string, Sent>()
  /** what went wrong, in words */
  readonly failures: string[] = []
  readonly #random: SeededRandom
  readonly #acked: Map<string, Acked>
  readonly #onAck: () => void
  #count = 0

  constructor(options: { uid: string; random: SeededRandom; acked: Map<string, Acked>; onAck: () => void }) {
    this.uid = options.uid
    this.#random = options.random
    this.#acked = options.acked
    this.#onAck = options.onAck
  }

  /**
   * Log in, send again what was never answered and some of what was, and then new messages until the connection ends.
   * Resolves when it has ended.
   */
  async run(port: number, again: readonly Sent[]): Promise<void> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    const closed = new Promise<void>((resolve) => socket.on('error', () => undefined).on('close', () => resolve()))
    const client = new TestClient({
      write: (bytes) => void socket.write(bytes),
      onData: (listener) => void socket.on('data', listener),
      closed,
    })
    const first = [...this.unanswered.values(), ...again]
    const next = (): Sent => first.shift() ?? this.#invent()
    try {
      const { reasonCode } = await client.connect({ uid: this.uid, plaintext: true })
      if (reasonCode !== 1) this.failures.push(`${this.uid}: CONNACK ${reasonCode}`)
      await Promise.all(Array.from({ length: WINDOW }, async () => {
        for (;;) await this.#send(client, next())
      }))
    } catch {
      await closed // the server has died, as it should
    }
  }

  async #send(client: TestClient, sent: Sent): Promise<void> {
    if (!this.#acked.has(sent.clientMsgNo)) this.unanswered.set(sent.clientMsgNo, sent)
    const { reasonCode, messageID: id, messageSeq } = await client.send({
      channelID: sent.channelID, channelType: sent.key.channelType, clientMsgNo: sent.clientMsgNo, payload: sent.text,
    })
    const messageID = String(id)
    if (reasonCode !== 1) return void this.failures.push(`${sent.clientMsgNo}: SENDACK ${reasonCode}`)
    const before = this.#acked.get(sent.clientMsgNo)
    if (before !== undefined && (before.messageID !== messageID || before.messageSeq !== messageSeq)) {
      this.failures.push(`${sent.clientMsgNo}: ${before.messageID} at ${before.messageSeq}, then ${messageID} at ${messageSeq}`)
    }
    this.unanswered.delete(sent.clientMsgNo)
    this.#acked.set(sent.clientMsgNo, { ...sent, messageID, messageSeq })
    this.#onAck()
  }

  #invent(): Sent {
    const { uid } = this
    const clientMsgNo = `${uid}-${++this.#count}`
    const text = `${clientMsgNo} ${'.'.repeat(this.#random.below(400))}`
    const peer = this.#random.pick(UIDS)
    if (this.#random.below(3) > 0 || peer === uid) {
      const key = this.#random.pick(GROUPS)
      return { uid, clientMsgNo, key, channelID: key.channelID, text }
    }
    return { uid, clientMsgNo, key: { channelID: personChannelID(uid, peer), channelType: 1 }, channelID: peer, text }
  }
}
