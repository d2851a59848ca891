/**
 * What other nodes publish for this one. Pushes of one node are given to the host one after the other, in the order they came;
 * those of different nodes do not wait for each other. A call that is repeated, because its answer was lost, is taken over
 * once. Nothing that arrives here throws: it is answered, or dropped and reported.
 */
import type { PeerPushHost } from '../../contracts/peer-push.ts'
import { IMError } from '../../errors.ts'
import {
  decodeAnswer, decodeKick, decodePart, Kind, Outcome, readHead, VERSION, type Answer, type CallName, type FrameHead, type PushPart,
} from './frames.ts'
import { decodePush } from './push-bytes.ts'

export interface InboxOptions {
  readonly host: PeerPushHost
  readonly life: string
  readonly maxCallCount: number
  readonly maxCallBytes: number
  readonly answer: (call: CallName, outcome: Outcome) => void
  /** Somebody has answered a call of this node. */
  readonly answered: (callID: number, answer: Answer) => void
  readonly report: (error: IMError) => void
}

/** Lives of nodes of which something is remembered; the one that was silent the longest is forgotten first. */
const MAX_SENDERS = 1_024
/** Calls of one life that are recognised when they are repeated. */
const MAX_REMEMBERED = 1_024
/** What waits of all nodes together, in `maxCallBytes`. */
const ALL_SENDERS = 4
const REPORT_EVERY_MS = 1_000

/** A push of which not every part has come. */
interface Incomplete {
  readonly callID: number
  readonly totalBytes: number
  readonly pieces: Buffer[]
  byteCount: number
}

/** One life of one other node. */
class Sender {
  waitingCount = 0
  waitingBytes = 0
  last: Promise<unknown> = Promise.resolve()
  incomplete: Incomplete | undefined
  /** by call; one that was not taken over is not remembered */
  readonly outcomes = new Map<number, Promise<Outcome>>()
}

export class Inbox {
  readonly #options: InboxOptions
  readonly #senders = new Map<string, Sender>()
  #heldBytes = 0
  #kickCount = 0
  #isClosed = false
  #droppedCount = 0
  #reportedAtMs = -Infinity

  constructor(options: InboxOptions) {
    this.#options = options
  }

  close(): void {
    this.#isClosed = true
    this.#senders.clear()
  }

  receive(frame: Buffer): void {
    if (this.#isClosed) return
    const head = readHead(frame)
    if (head === undefined) return this.#drop('something that is no frame was published')
    if (head.version !== VERSION) {
      this.#drop(`a node speaks version ${head.version}, this one ${VERSION}`)
      if (head.kind !== Kind.Answer) this.#options.answer(head, Outcome.NotUnderstood)
    } else if (head.kind === Kind.Part) this.#part(head, decodePart(frame))
    else if (head.kind === Kind.Kick) this.#kick(head, frame)
    else if (head.kind === Kind.Answer) this.#answer(head, decodeAnswer(frame))
    else this.#drop(`a frame of the unknown kind ${head.kind} was published`)
  }

  #answer(head: FrameHead, answer: Answer | undefined): void {
    if (answer === undefined) return this.#drop('an answer cannot be read')
    if (head.life === this.#options.life) this.#options.answered(head.callID, answer)
  }

  #part(head: FrameHead, part: PushPart | undefined): void {
    if (part === undefined) {
      this.#drop('a part of a push cannot be read')
      return this.#options.answer(head, Outcome.NotUnderstood)
    }
    const sender = this.#senderOf(head.life)
    if (sender === undefined || (part.start === 0 && !this.#hasRoom(sender, part.totalBytes))) {
      return this.#options.answer(head, Outcome.TooMuch)
    }
    if (part.start === 0) {
      this.#forgetIncomplete(sender) // its end is not going to come: parts arrive in order
      sender.incomplete = { callID: head.callID, totalBytes: part.totalBytes, pieces: [], byteCount: 0 }
    }
    const { incomplete } = sender
    if (incomplete?.callID !== head.callID || incomplete.byteCount !== part.start || incomplete.totalBytes !== part.totalBytes) {
      this.#forgetIncomplete(sender)
      return this.#options.answer(head, Outcome.Failed)
    }
    incomplete.pieces.push(part.bytes)
    incomplete.byteCount += part.bytes.length
    this.#hold(sender, part.bytes.length)
    if (incomplete.byteCount < incomplete.totalBytes) return
    sender.incomplete = undefined
    this.#take(sender, head, incomplete)
  }

  #take(sender: Sender, head: FrameHead, { pieces, totalBytes }: Incomplete): void {
    const { callID } = head
    const earlier = sender.outcomes.get(callID)
    const outcome = earlier ?? sender.last.then(() => this.#deliver(pieces))
    if (earlier === undefined) {
      sender.last = outcome
      sender.outcomes.set(callID, outcome)
      if (sender.outcomes.size > MAX_REMEMBERED) sender.outcomes.delete(sender.outcomes.keys().next().value!)
    }
    sender.waitingCount++
    void outcome.then((result) => {
      sender.waitingCount--
      this.#hold(sender, -totalBytes)
      if (result !== Outcome.Taken) sender.outcomes.delete(callID)
      if (!this.#isClosed) this.#options.answer(head, result)
    })
  }

  /** Never rejects. */
  async #deliver(pieces: readonly Buffer[]): Promise<Outcome> {
    if (this.#isClosed) return Outcome.Failed
    const request = decodePush(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces))
    if (request === undefined) {
      this.#drop('a push cannot be read')
      return Outcome.NotUnderstood
    }
    try {
      await this.#options.host.pushed(request)
      return Outcome.Taken
    } catch (error) {
      this.#drop('a push of another node could not be taken over', error)
      return Outcome.Failed
    }
  }

  #kick(head: FrameHead, frame: Buffer): void {
    const { life, host, maxCallCount, answer, answered } = this.#options
    // The own one comes back, too: that says that answers would be heard.
    if (head.life === life) return answered(head.callID, { nodeID: host.nodeID, life, outcome: Outcome.Taken })
    const kick = decodeKick(frame)
    if (kick === undefined) {
      this.#drop('a kick cannot be read')
      return answer(head, Outcome.NotUnderstood)
    }
    if (this.#kickCount >= maxCallCount) return answer(head, Outcome.TooMuch)
    this.#kickCount++
    const apply = async (): Promise<void> => host.kicked(kick.out === undefined ? { ...kick, nodeID: head.nodeID } : kick)
    void apply()
      .then(
        () => Outcome.Taken,
        (error: unknown) => {
          this.#drop('a kick of another node could not be applied', error)
          return Outcome.Failed
        },
      )
      .then((outcome) => {
        this.#kickCount--
        if (!this.#isClosed) answer(head, outcome)
      })
  }

  /** Undefined when everything that may be remembered is of nodes whose pushes wait. */
  #senderOf(life: string): Sender | undefined {
    const known = this.#senders.get(life)
    if (known === undefined && this.#senders.size >= MAX_SENDERS) {
      const [oldestLife, oldest] = this.#senders.entries().next().value!
      if (oldest.waitingCount > 0) return undefined
      this.#forgetIncomplete(oldest)
      this.#senders.delete(oldestLife)
    }
    const sender = known ?? new Sender()
    this.#senders.delete(life)
    this.#senders.set(life, sender)
    return sender
  }

  #hasRoom(sender: Sender, byteCount: number): boolean {
    const { maxCallBytes, maxCallCount } = this.#options
    return (
      sender.waitingCount < maxCallCount &&
      sender.waitingBytes + byteCount <= maxCallBytes &&
      this.#heldBytes + byteCount <= ALL_SENDERS * maxCallBytes
    )
  }

  #forgetIncomplete(sender: Sender): void {
    if (sender.incomplete !== undefined) this.#hold(sender, -sender.incomplete.byteCount)
    sender.incomplete = undefined
  }

  #hold(sender: Sender, byteCount: number): void {
    sender.waitingBytes += byteCount
    this.#heldBytes += byteCount
  }

  /** Told at most once a second: whoever can publish could otherwise fill the log. */
  #drop(detail: string, cause?: unknown): void {
    this.#droppedCount++
    const nowMs = performance.now()
    if (nowMs - this.#reportedAtMs < REPORT_EVERY_MS) return
    const text = this.#droppedCount === 1 ? detail : `${detail}, the last of ${this.#droppedCount} such things`
    this.#reportedAtMs = nowMs
    this.#droppedCount = 0
    this.#options.report(new IMError('IM_PEER_UNREACHABLE', { detail: text, ...(cause === undefined ? {} : { cause }) }))
  }
}
