/**
 * Users whom nobody has seen before: each logs in, writes one message that is stored nowhere to one who listens, and leaves for
 * ever. Whatever keeps something by user, device, connection or channel and never lets go of it grows with each of them.
 */
import { randomBytes } from 'node:crypto'
import { ChannelType, encode, FrameDecoder, FrameFlag, FrameType, ReasonCode, sealSend, type SendPacket } from 'imengine/protocol'
import type { SoakJob } from '../wire.ts'
import { logIn } from './im-client.ts'
import type { Link } from './link.ts'
import { wait } from './traffic.ts'

const LISTENER = 'listener'
const VERSION = 5
/** The next one waits when so many are under way: a server that is late is not to be stormed. */
const MAX_UNDER_WAY = 20

export class Newcomers {
  /** have come and been answered */
  count = 0
  /** messages of theirs that have arrived */
  heardCount = 0
  readonly #job: SoakJob
  readonly #payload: Buffer
  readonly #fail: (error: Error) => void
  readonly #links = new Set<Link>()
  /** no two runs have the same users */
  readonly #name = randomBytes(6).toString('hex')
  #startedCount = 0
  #isOver = false

  constructor(job: SoakJob, payload: Buffer, fail: (error: Error) => void) {
    this.#job = job
    this.#payload = payload
    this.#fail = fail
  }

  /** Until `end`, and one at least. @throws when one of them is not let in */
  async run(): Promise<void> {
    const { newcomersPerSecond } = this.#job
    if (newcomersPerSecond === 0) return
    const listener = await this.#logIn(LISTENER)
    const decoder = new FrameDecoder({ version: VERSION })
    listener.link.onUnit = (bytes, from, to) => {
      decoder.feed(bytes.subarray(from, to), (frame) => {
        if (frame.type !== FrameType.RECV) throw new Error(`the listener was sent a frame of type ${frame.type}`)
        this.heardCount++
        // As SDKs do; and who says nothing for long is taken for dead.
        listener.link.write(listener.link.pack(encode({ type: FrameType.RECVACK, flags: 0, messageID: frame.messageID, messageSeq: frame.messageSeq }, VERSION)))
      })
    }
    listener.link.afterChunk = () => listener.link.flush()
    const visits = new Set<Promise<void>>()
    do {
      if (visits.size < MAX_UNDER_WAY) {
        const visit = this.#visit(`new-${this.#name}-${this.#startedCount++}`).catch(this.#fail)
        visits.add(visit)
        void visit.finally(() => visits.delete(visit))
      }
      await wait((2 * Math.random() * 1_000) / newcomersPerSecond)
    } while (!this.#isOver)
    await Promise.all(visits)
    for (const endMs = performance.now() + this.#job.drainMs; this.heardCount < this.count; await wait(5)) {
      if (performance.now() > endMs) throw new Error(`lost: of ${this.count} messages of newcomers ${this.heardCount} were delivered`)
    }
    if (this.heardCount > this.count) throw new Error(`${this.heardCount} deliveries of ${this.count} messages of newcomers: some came twice`)
  }

  end(): void {
    this.#isOver = true
  }

  close(): void {
    this.#isOver = true
    for (const link of this.#links) link.close()
  }

  async #visit(uid: string): Promise<void> {
    const { link, cipher } = await this.#logIn(uid)
    const send: SendPacket = {
      type: FrameType.SEND, flags: FrameFlag.NoPersist, setting: 0, clientSeq: 1, clientMsgNo: `${uid}-1`, streamNo: '', channelID: LISTENER, channelType: ChannelType.Person,
      expireSec: 0, msgKey: '', topic: '', payload: this.#payload,
    }
    const decoder = new FrameDecoder({ version: VERSION })
    await new Promise<void>((resolve, reject) => {
      link.onUnit = (bytes, from, to) => {
        decoder.feed(bytes.subarray(from, to), (frame) => {
          if (frame.type === FrameType.SENDACK && frame.reasonCode === ReasonCode.Success) resolve()
          else reject(new Error(`${uid} was answered with a frame of type ${frame.type}${frame.type === FrameType.SENDACK ? `, reason ${frame.reasonCode}` : ''}`))
        })
      }
      link.write(link.pack(encode(cipher === undefined ? send : sealSend(send, cipher), VERSION)))
      link.flush()
    })
    this.count++
    this.#links.delete(link)
    link.close()
  }

  async #logIn(uid: string): ReturnType<typeof logIn> {
    const { port, transport, encryption } = this.#job
    const login = await logIn({ port, transport, encryption, uid, fail: this.#fail })
    this.#links.add(login.link)
    return login
  }
}
