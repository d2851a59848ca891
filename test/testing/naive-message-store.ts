import type { AppendBatch, AppendResult, MessageStore, RangeQuery } from '../../src/contracts/message-store.ts'
import type { ChannelKey } from '../../src/model/channel.ts'
import type { Message } from '../../src/model/message.ts'

/** What a store may get wrong; each is one line of the store below. */
export const DEFECTS = [
  'a failed append leaves a gap',
  'a failed append leaves what came before the failure',
  'a failed call leaves its first batch',
  'the same number from another sender is a repeat',
  'the same number in another channel is a repeat',
  'sender and number are joined with a colon',
  'a repeat within one batch is stored twice',
  'a repeat is stored again',
  'an empty number is a repeat',
  'a conflict is told as a duplicate',
  'a conflict replaces the payload',
  'a duplicate is answered with its own id',
  'a duplicate uses up a number',
  "the caller's payload is kept",
  "the store's payload is handed out",
  'the last batch of a call is lost',
  'the results of the batches are mixed up',
  'the type of a channel is ignored',
  'overlapping calls are not kept in order',
  'numbers of truncated messages are given again',
  'truncate removes one too many',
  'truncate forgets to remove from the ids',
  'truncate forgets to remove from the numbers',
  'truncate does not say how many',
  'expired messages are shown in a range',
  'expired messages are found by id',
  'expired messages count in the limit',
  'a range ends before its end',
  'a range counts up whatever its direction',
  'a backward range takes the oldest',
  'a range has no limit of its own',
  'a query out of its bounds is taken',
  'ids lose digits',
  'get leaves out what it does not find',
  'a field is forgotten',
  'payloads are text',
] as const
export type Defect = (typeof DEFECTS)[number]

/** A list of everything, searched from the front: right without a defect, and wrong in one way with one. */
export class NaiveMessageStore implements MessageStore {
  readonly #has: (defect: Defect) => boolean
  #held: Message[] = []
  readonly #lastSeqs = new Map<string, number>()
  readonly #truncated: Message[] = []

  constructor(defect?: Defect) {
    this.#has = (asked) => asked === defect
  }

  async append(batches: readonly AppendBatch[]): Promise<AppendResult[][]> {
    const heldBefore = [...this.#held]
    const seqsBefore = new Map(this.#lastSeqs)
    if (this.#has('overlapping calls are not kept in order') && batches.length === 1) await jitter(batches[0])
    try {
      const lost = this.#has('the last batch of a call is lost') && batches.length > 1 ? batches.at(-1) : undefined
      const results = batches.map((batch) => (batch === lost ? this.#pretend(batch) : this.#appendBatch(batch)))
      return this.#has('the results of the batches are mixed up') ? results.reverse() : results
    } catch (error) {
      const keepFirst = this.#has('a failed call leaves its first batch') && batches.length > 1
      if (!keepFirst && !this.#has('a failed append leaves what came before the failure')) this.#held = heldBefore
      if (!keepFirst && !this.#has('a failed append leaves a gap')) restore(this.#lastSeqs, seqsBefore)
      throw error
    }
  }

  async range(key: ChannelKey, query: RangeQuery = {}): Promise<Message[]> {
    const { startSeq, endSeq, direction = 'forward' } = query
    const limit = query.limit ?? (this.#has('a range has no limit of its own') ? Infinity : 100)
    if (!this.#has('a query out of its bounds is taken')) check(query)
    const backward = direction === 'backward'
    const low = (backward ? endSeq : startSeq) ?? 0
    const high = ((backward ? startSeq : endSeq) ?? Infinity) - (this.#has('a range ends before its end') && endSeq ? 1 : 0)
    let found = this.#of(key).filter(({ messageSeq }) => messageSeq >= low && messageSeq <= high)
    if (this.#has('expired messages count in the limit')) found = found.slice(0, limit)
    if (!this.#has('expired messages are shown in a range')) found = found.filter(isReadable)
    if (backward && this.#has('a backward range takes the oldest')) return found.slice(0, limit).reverse().map(this.#show)
    if (backward && !this.#has('a range counts up whatever its direction')) found.reverse()
    return found.slice(0, limit).map(this.#show)
  }

  async lastSeq(key: ChannelKey): Promise<number> {
    if (!this.#has('numbers of truncated messages are given again')) return this.#lastSeqs.get(this.#nameOf(key)) ?? 0
    return this.#of(key).at(-1)?.messageSeq ?? 0
  }

  async findByClientMsgNo(key: ChannelKey, fromUID: string, clientMsgNo: string): Promise<Message | undefined> {
    const gone = this.#has('truncate forgets to remove from the numbers') ? this.#truncated : []
    const found = clientMsgNo === '' ? undefined : this.#repeatOf(key, fromUID, clientMsgNo, [...gone, ...this.#held])
    return found !== undefined && isReadable(found) ? this.#show(found) : undefined
  }

  async get(messageIDs: readonly string[]): Promise<(Message | undefined)[]> {
    const gone = this.#has('truncate forgets to remove from the ids') ? this.#truncated : []
    const found = messageIDs.map((id) => {
      const message = [...this.#held, ...gone].find((held) => held.messageID === this.#idOf(id))
      const readable = message !== undefined && (this.#has('expired messages are found by id') || isReadable(message))
      return readable ? this.#show(message) : undefined
    })
    return this.#has('get leaves out what it does not find') ? found.filter((message) => message !== undefined) : found
  }

  async truncate(key: ChannelKey, beforeSeq: number): Promise<{ removedCount: number }> {
    const below = this.#has('truncate removes one too many') ? beforeSeq + 1 : beforeSeq
    const gone = this.#of(key).filter((message) => message.messageSeq < below)
    this.#truncated.push(...gone)
    this.#held = this.#held.filter((message) => !gone.includes(message))
    return { removedCount: this.#has('truncate does not say how many') ? 0 : gone.length }
  }

  #appendBatch({ key, messages }: AppendBatch): AppendResult[] {
    const searched = this.#has('a repeat within one batch is stored twice') ? [...this.#held] : undefined
    return messages.map((message) => {
      const messageSeq = this.#nextSeq(key)
      const earlier = this.#repeatOf(key, message.fromUID, message.clientMsgNo, searched ?? this.#held)
      if (earlier !== undefined && !this.#has('a repeat is stored again')) return this.#answerRepeat(earlier, message, key)
      if (this.#has('a failed append leaves a gap')) this.#lastSeqs.set(this.#nameOf(key), messageSeq)
      this.#held.push({ ...message, ...key, messageSeq, ...this.#kept(message) })
      this.#lastSeqs.set(this.#nameOf(key), messageSeq)
      return { status: 'stored', messageID: message.messageID, messageSeq }
    })
  }

  #answerRepeat(earlier: Message, message: Message, key: ChannelKey): AppendResult {
    const isSame = Buffer.compare(earlier.payload, message.payload) === 0
    if (!isSame && this.#has('a conflict replaces the payload')) Object.assign(earlier, { payload: message.payload })
    if (this.#has('a duplicate uses up a number')) this.#lastSeqs.set(this.#nameOf(key), this.#nextSeq(key))
    return {
      status: isSame || this.#has('a conflict is told as a duplicate') ? 'duplicate' : 'conflict',
      messageID: this.#has('a duplicate is answered with its own id') ? message.messageID : earlier.messageID,
      messageSeq: earlier.messageSeq,
    }
  }

  /** The right answer, and nothing stored. */
  #pretend({ key, messages }: AppendBatch): AppendResult[] {
    const first = this.#nextSeq(key)
    return messages.map(({ messageID }, i) => ({ status: 'stored', messageID, messageSeq: first + i }))
  }

  #nextSeq(key: ChannelKey): number {
    const last = this.#lastSeqs.get(this.#nameOf(key)) ?? 0
    return (this.#has('numbers of truncated messages are given again') ? (this.#of(key).at(-1)?.messageSeq ?? 0) : last) + 1
  }

  #repeatOf(key: ChannelKey, fromUID: string, clientMsgNo: string, held: readonly Message[]): Message | undefined {
    if (clientMsgNo === '' && !this.#has('an empty number is a repeat')) return undefined
    return held.find((message) => {
      if (!this.#has('the same number in another channel is a repeat') && !this.#isOf(key, message)) return false
      if (this.#has('sender and number are joined with a colon')) {
        return `${message.fromUID}:${message.clientMsgNo}` === `${fromUID}:${clientMsgNo}`
      }
      const sameSender = message.fromUID === fromUID || this.#has('the same number from another sender is a repeat')
      return sameSender && message.clientMsgNo === clientMsgNo
    })
  }

  #kept(message: Message): Partial<Message> {
    const { payload } = message
    if (this.#has("the caller's payload is kept")) return { payload }
    if (this.#has('payloads are text')) return { payload: Buffer.from(Buffer.from(payload).toString()) }
    const kept = { payload: Buffer.from(payload), messageID: this.#idOf(message.messageID) }
    return this.#has('a field is forgotten') ? { ...kept, topic: '' } : kept
  }

  readonly #show = (message: Message): Message =>
    this.#has("the store's payload is handed out") ? message : { ...message, payload: Buffer.from(message.payload) }

  #idOf(messageID: string): string {
    return this.#has('ids lose digits') ? BigInt(Number(messageID)).toString() : messageID
  }

  #nameOf({ channelID, channelType }: ChannelKey): string {
    return this.#has('the type of a channel is ignored') ? channelID : `${channelType}:${channelID}`
  }

  #isOf(key: ChannelKey, message: Message): boolean {
    return this.#nameOf(key) === this.#nameOf(message)
  }

  #of(key: ChannelKey): Message[] {
    return this.#held.filter((message) => this.#isOf(key, message))
  }
}

function isReadable({ expireSec, timestampMs }: Message): boolean {
  return expireSec === 0 || timestampMs + expireSec * 1000 > Date.now()
}

function check({ limit = 1, startSeq = 0, endSeq = 0, direction = 'forward' }: RangeQuery): void {
  const isSeq = (seq: number): boolean => Number.isSafeInteger(seq) && seq >= 0
  const isLimit = Number.isInteger(limit) && limit >= 1 && limit <= 10_000
  if (!isLimit || !isSeq(startSeq) || !isSeq(endSeq) || !['forward', 'backward'].includes(direction)) throw new TypeError('query')
}

/** Take longer over some batches than over others. */
async function jitter(batch: AppendBatch | undefined): Promise<void> {
  const turns = Number(BigInt(batch?.messages[0]?.messageID ?? 0) % 3n)
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
}

function restore(map: Map<string, number>, before: ReadonlyMap<string, number>): void {
  map.clear()
  for (const [name, seq] of before) map.set(name, seq)
}
