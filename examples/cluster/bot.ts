import { ChannelType, DeviceFlag, ReasonCode } from 'imengine'
import { TestClient, type ReceivedMessage } from 'imengine/testing'
import { WebSocket } from 'ws'

export interface BotOptions {
  readonly name: string
  /** of the nodes; it goes on to the next one when one does not serve it */
  readonly ports: readonly number[]
}

const PACE_MS = 25
const PAUSE_MS = 100
const ANSWER_LIMIT_MS = 2_000

/**
 * A user who never gives up: says something, and says it again under the same `clientMsgNo`, on whatever node there is, until it is
 * acknowledged. That is what SDKs do.
 */
export class Bot {
  readonly name: string
  uid = ''
  /** by clientMsgNo, with the number that was told */
  readonly acknowledged = new Map<string, number>()
  /** by clientMsgNo, how often each has come */
  readonly received = new Map<string, number>()
  sentCount = 0
  /** the longest time from one acknowledgement to the next */
  longestPauseMs = 0
  #token = ''
  #portIndex: number
  readonly #ports: readonly number[]
  #client: TestClient | undefined
  #stopping = false
  #talking: Promise<void> = Promise.resolve()

  constructor({ name, ports }: BotOptions, index: number) {
    this.name = name
    this.#ports = ports
    this.#portIndex = index
  }

  /** Take the name, by the page's own HTTP. */
  async signIn(): Promise<void> {
    const response = await fetch(this.#url('/api/login'), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: this.name }),
    })
    if (!response.ok) throw new Error(`${this.name} cannot sign in: ${await response.text()}`)
    const { uid, token } = (await response.json()) as { uid: string; token: string }
    this.uid = uid
    this.#token = token
  }

  talkTo(peerUID: string): void {
    this.#talking = this.#talk(peerUID)
  }

  /** Resolves when what it says has been acknowledged. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#talking
  }

  /** A login, which brings what no device of theirs has acknowledged. */
  async come(): Promise<void> {
    this.#leave()
    await this.#connected()
  }

  close(): void {
    this.#leave()
  }

  /** What a node's history has of the conversation: the number of each clientMsgNo. */
  async historyOf(port: number, peerUID: string): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>()
    for (let after = 0; ; ) {
      const query = `channelID=${peerUID}&channelType=${ChannelType.Person}&after=${after}`
      const response = await fetch(`http://127.0.0.1:${port}/api/history?${query}`, { headers: { authorization: `Bearer ${this.#token}` } })
      if (!response.ok) throw new Error(`the history of port ${port}: ${await response.text()}`)
      const { messages } = (await response.json()) as { messages: { clientMsgNo: string; messageSeq: number }[] }
      for (const { clientMsgNo, messageSeq } of messages) found.set(clientMsgNo, messageSeq)
      if (messages.length === 0) return found
      after = messages.at(-1)!.messageSeq
    }
  }

  async #talk(peerUID: string): Promise<void> {
    let lastMs = performance.now()
    while (!this.#stopping) {
      const clientMsgNo = `${this.uid}-${++this.sentCount}`
      const message = { channelID: peerUID, channelType: ChannelType.Person, clientMsgNo, payload: JSON.stringify({ type: 1, content: clientMsgNo }) }
      for (;;) {
        const client = await this.#connected()
        const answer = await inTime(client.send(message))
        if (answer?.reasonCode === ReasonCode.Success) {
          this.acknowledged.set(clientMsgNo, answer.messageSeq)
          break
        }
        await pause(PAUSE_MS)
        if (answer === undefined || answer.reasonCode === ReasonCode.NodeNotMatch) this.#goOn()
      }
      const nowMs = performance.now()
      this.longestPauseMs = Math.max(this.longestPauseMs, nowMs - lastMs)
      lastMs = nowMs
      await pause(PACE_MS)
    }
  }

  /** The connection there is, or a new one to the first node that takes it. */
  async #connected(): Promise<TestClient> {
    while (this.#client === undefined || this.#client.isClosed) {
      const client = await inTime(connect(this.#url('/ws').replace('http', 'ws'), (message) => this.#hear(message)))
      const login = { uid: this.uid, token: this.#token, deviceID: `${this.name}-bot`, deviceFlag: DeviceFlag.Web }
      const connack = client && (await inTime(client.connect(login)))
      if (connack?.reasonCode === ReasonCode.Success) this.#client = client
      else {
        client?.end()
        this.#portIndex++
        await pause(PAUSE_MS)
      }
    }
    return this.#client
  }

  #hear({ fromUID, clientMsgNo }: ReceivedMessage): void {
    // What it has said itself through a connection that is gone comes to the next one, as to another device.
    if (fromUID !== this.uid) this.received.set(clientMsgNo, (this.received.get(clientMsgNo) ?? 0) + 1)
  }

  #goOn(): void {
    this.#leave()
    this.#portIndex++
  }

  #leave(): void {
    this.#client?.end()
    this.#client = undefined
  }

  #url(path: string): string {
    return `http://127.0.0.1:${this.#ports[this.#portIndex % this.#ports.length]}${path}`
  }
}

/** @throws Error when nobody takes the connection */
async function connect(url: string, received: (message: ReceivedMessage) => void): Promise<TestClient> {
  const socket = new WebSocket(url)
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  const closed = new Promise((resolve) => socket.on('close', resolve).on('error', () => undefined))
  const client = new TestClient({
    write: (bytes) => socket.send(bytes, () => undefined),
    onData: (listener) => void socket.on('message', (chunk: Buffer) => listener(chunk)),
    closed,
    end: () => socket.terminate(),
  })
  void listen(client, received)
  return client
}

async function listen(client: TestClient, received: (message: ReceivedMessage) => void): Promise<void> {
  try {
    for (;;) received(await client.nextRecv())
  } catch {
    // The connection has ended.
  }
}

/** undefined when it fails, or does not come in time */
async function inTime<T>(promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ANSWER_LIMIT_MS)
  })
  const answer = await Promise.race([promise.catch(() => undefined), late])
  clearTimeout(timer)
  return answer
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
