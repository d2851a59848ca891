import type { PageQuery } from '../../src/contracts/channel-directory.ts'
import type {
  AppendBatch,
  AppendResult,
  ChannelSummary,
  LogPosition,
  MessageChange,
  MessageStore,
  RangeQuery,
  SweepResult,
} from '../../src/contracts/message-store.ts'
import { checkLogPosition } from '../../src/contracts/log-position.ts'
import { ChannelType, personChannelUIDs, sourceKey, type ChannelKey, type Page } from '../../src/model/channel.ts'
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
  'an edit changes the verdict on repeats',
  'a recall changes the verdict on repeats',
  'a repeat takes an edit back',
  'a recall can be undone',
  'a recall can be done twice',
  'a recall keeps the payload',
  'every change is the first version',
  'edits that overlap share a version',
  'an edit moves the time of its message',
  'an edit changes every message with its seq',
  'an expired message can be revised',
  'revising what is not there is an error',
  'the payload of an edit is kept',
  'the revision itself is handed out',
  'countAfter counts recalled messages',
  'countAfter counts removed messages',
  'countAfter counts the message it starts after',
  'countAfter takes off what was recalled below it',
  'countAfter takes any number',
  'summaries name a channel once',
  'a summary tells how far anybody has written',
  'a summary tells the latest time',
  'a repeat counts as written',
  'a failed append counts as written',
  'truncate forgets how far its channel had come',
  'truncate raises no floor',
  'truncate raises the floor above the last message',
  'an edit counts as written by its editor',
  'person channels are forgotten with their messages',
  'a person channel is listed for its first half only',
  'a channel with oneself is listed twice',
  'a command channel is listed as itself',
  'a pair is a person channel whatever its type',
  'whatever has an @ is a pair',
  'half a uid finds the channels of a user',
  'person channels are listed by their last message',
  'a page of person channels goes over its limit',
  'a page of person channels has no limit of its own',
  'the last page of person channels has a cursor',
  'a page limit out of its bounds is taken',
  'sweep removes nothing',
  'sweep stops at the first message that stays',
  'sweep goes by a clock of its own',
  'sweep reuses a number',
  'sweep does not say how many',
  'sweep is never done',
  'sweep forgets how far somebody had written',
  'sweep removes the whole channel',
  'a position is kept before its messages',
  'a position without a message is forgotten',
  'a position given with a change is forgotten',
  'all logs share a position',
  'any position is taken',
] as const
export type Defect = (typeof DEFECTS)[number]

/** What a restart may lose, beside everything. */
export const LOSSES = ['revisions', 'the payloads that messages came with', 'floors', 'what there has ever been', 'positions'] as const
export type Loss = (typeof LOSSES)[number]

/** A list of everything, searched from the front: right without a defect, and wrong in one way with one. */
export class NaiveMessageStore implements MessageStore {
  readonly #has: (defect: Defect) => boolean
  #held: Message[] = []
  readonly #lastSeqs = new Map<string, number>()
  readonly #truncated: Message[] = []
  /** everything that was ever stored, in that order */
  #ever: Message[] = []
  readonly #floors = new Map<string, number>()
  readonly #originals = new Map<Message, Uint8Array>()
  readonly #positions = new Map<string, number>()

  constructor(defect?: Defect) {
    this.#has = (asked) => asked === defect
  }

  /** The same content in another store, but for one loss. */
  restarted(loss?: Loss): NaiveMessageStore {
    const next = new NaiveMessageStore()
    const copies = new Map(this.#ever.map((message) => [message, { ...message }]))
    const copyOf = (message: Message): Message => copies.get(message) ?? message
    next.#ever = loss === 'what there has ever been' ? [] : this.#ever.map(copyOf)
    next.#held = this.#held.map(copyOf)
    for (const [name, seq] of this.#lastSeqs) next.#lastSeqs.set(name, seq)
    if (loss !== 'floors') for (const [name, seq] of this.#floors) next.#floors.set(name, seq)
    if (loss !== 'positions') restore(next.#positions, this.#positions)
    for (const [message, original] of this.#originals) {
      const copy = copyOf(message)
      next.#originals.set(copy, loss === 'the payloads that messages came with' ? copy.payload : original)
      if (loss !== 'revisions' || copy.revision === undefined) continue
      Object.assign(copy, { payload: original })
      Reflect.deleteProperty(copy, 'revision')
    }
    return next
  }

  async logPosition(log: string): Promise<number> {
    return this.#positions.get(this.#has('all logs share a position') ? '' : log) ?? 0
  }

  async append(batches: readonly AppendBatch[], position?: LogPosition): Promise<AppendResult[][]> {
    if (position !== undefined && !this.#has('any position is taken')) checkLogPosition(position)
    if (this.#has('a position is kept before its messages')) this.#keepPosition(position)
    const heldBefore = [...this.#held]
    const seqsBefore = new Map(this.#lastSeqs)
    const everBefore = [...this.#ever]
    if (this.#has('overlapping calls are not kept in order') && batches.length === 1) await jitter(batches[0])
    try {
      const lost = this.#has('the last batch of a call is lost') && batches.length > 1 ? batches.at(-1) : undefined
      const results = batches.map((batch) => (batch === lost ? this.#pretend(batch) : this.#appendBatch(batch)))
      if (batches.length > 0 || !this.#has('a position without a message is forgotten')) this.#keepPosition(position)
      return this.#has('the results of the batches are mixed up') ? results.reverse() : results
    } catch (error) {
      const keepFirst = this.#has('a failed call leaves its first batch') && batches.length > 1
      if (!keepFirst && !this.#has('a failed append leaves what came before the failure')) this.#held = heldBefore
      if (!this.#has('a failed append counts as written')) this.#ever = everBefore
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
    if (!this.#has('expired messages are shown in a range')) found = found.filter((message) => isReadable(message))
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
    if (this.#has('truncate forgets how far its channel had come')) this.#ever = this.#ever.filter((message) => !gone.includes(message))
    const isAboveAllowed = this.#has('truncate raises the floor above the last message')
    const floorSeq = isAboveAllowed ? beforeSeq - 1 : Math.min(beforeSeq - 1, this.#lastSeqs.get(this.#nameOf(key)) ?? 0)
    const isHigher = floorSeq > (this.#floors.get(this.#nameOf(key)) ?? 0)
    if (isHigher && !this.#has('truncate raises no floor')) this.#floors.set(this.#nameOf(key), floorSeq)
    return { removedCount: this.#has('truncate does not say how many') ? 0 : gone.length }
  }

  async summaries(uid: string, keys: readonly ChannelKey[]): Promise<ChannelSummary[]> {
    const names = new Map(keys.map((key) => [this.#nameOf(key), key]))
    return (this.#has('summaries name a channel once') ? [...names.values()] : keys).map((key) => {
      const ever = this.#ever.filter((message) => this.#isOf(key, message))
      const sent = ever.filter((message) => message.fromUID === uid || this.#has('a summary tells how far anybody has written'))
      if (this.#has('an edit counts as written by its editor')) sent.push(...ever.filter(({ revision }) => revision?.byUID === uid))
      const times = ever.map((message) => message.timestampMs)
      return {
        lastSeq: this.#lastSeqs.get(this.#nameOf(key)) ?? 0,
        floorSeq: this.#floors.get(this.#nameOf(key)) ?? 0,
        lastTimestampMs: (this.#has('a summary tells the latest time') ? Math.max(0, ...times) : times.at(-1)) ?? 0,
        sentSeq: Math.max(0, ...sent.map((message) => message.messageSeq)),
      }
    })
  }

  async countAfter(key: ChannelKey, afterSeq: number): Promise<number> {
    if (!this.#has('countAfter takes any number')) check({ startSeq: afterSeq })
    const from = this.#has('countAfter counts the message it starts after') ? afterSeq : afterSeq + 1
    const counted = this.#has('countAfter counts removed messages') ? this.#ever.filter((message) => this.#isOf(key, message)) : this.#of(key)
    const above = counted.filter((message) => message.messageSeq >= from)
    if (this.#has('countAfter counts recalled messages')) return above.length
    const takenOff = this.#has('countAfter takes off what was recalled below it') ? counted : above
    return above.length - takenOff.filter((message) => message.revision?.kind === 'recalled').length
  }

  async personChannelsOf(uid: string, query: PageQuery = {}): Promise<Page<ChannelKey>> {
    const { limit = this.#has('a page of person channels has no limit of its own') ? Infinity : 1000, cursor } = query
    if (!this.#has('a page limit out of its bounds is taken')) check({ limit: query.limit ?? 1 })
    let listed = this.#has('person channels are forgotten with their messages') ? this.#held : this.#ever
    if (this.#has('person channels are listed by their last message')) listed = [...listed].reverse()
    const isPerson = (message: Message): boolean => message.channelType === ChannelType.Person
    const pairs = this.#has('a pair is a person channel whatever its type') ? listed : listed.filter(isPerson)
    const sourceOf = (message: Message): string => (this.#has('a command channel is listed as itself') ? message : sourceKey(message)).channelID
    const ids = pairs.map(sourceOf).flatMap((id) => (this.#isHalf(uid, id) ? [id] : []))
    const isTwice = (id: string): boolean => id === `${uid}@${uid}` && this.#has('a channel with oneself is listed twice')
    const unique = [...new Set(ids)].flatMap((id) => (isTwice(id) ? [id, id] : [id]))
    const start = Number(cursor ?? 0)
    const end = start + limit + (this.#has('a page of person channels goes over its limit') ? 1 : 0)
    const items = unique.slice(start, end).map((channelID) => ({ channelID, channelType: ChannelType.Person }))
    const isLast = end >= unique.length + (this.#has('the last page of person channels has a cursor') && items.length > 0 ? 1 : 0)
    return isLast ? { items } : { items, cursor: String(end) }
  }

  async revise(key: ChannelKey, messageSeq: number, change: MessageChange, position?: LogPosition): Promise<Message | undefined> {
    if (position !== undefined && !this.#has('any position is taken')) checkLogPosition(position)
    const found = this.#of(key).find((message) => message.messageSeq === messageSeq)
    if (found === undefined && this.#has('revising what is not there is an error')) throw new Error('there is no such message')
    if (found === undefined || (!isReadable(found) && !this.#has('an expired message can be revised'))) return undefined
    const isAgain = change.kind === 'recalled' ? 'a recall can be done twice' : 'a recall can be undone'
    if (found.revision?.kind === 'recalled' && !this.#has(isAgain)) return this.#show(found)
    const version = this.#has('every change is the first version') ? 1 : (found.revision?.version ?? 0) + 1
    if (this.#has('edits that overlap share a version')) await Promise.resolve()
    const revision = { kind: change.kind, version, byUID: change.byUID, timestampMs: change.timestampMs }
    const isEverywhere = this.#has('an edit changes every message with its seq')
    const changed = isEverywhere ? this.#held.filter((message) => message.messageSeq === messageSeq) : [found]
    for (const message of changed) Object.assign(message, { payload: this.#revisedPayload(message, change), revision })
    if (this.#has('an edit moves the time of its message')) Object.assign(found, { timestampMs: change.timestampMs })
    if (!this.#has('a position given with a change is forgotten')) this.#keepPosition(position)
    return this.#show(found)
  }

  async sweep(nowMs: number): Promise<SweepResult> {
    const timeMs = this.#has('sweep goes by a clock of its own') ? Date.now() : nowMs
    const isOver = (message: Message): boolean => !isReadable(message, timeMs)
    const isStopped = (message: Message): boolean =>
      this.#has('sweep stops at the first message that stays') &&
      this.#of(message).some((other) => other.messageSeq < message.messageSeq && !isOver(other))
    let gone = this.#held.filter((message) => isOver(message) && !isStopped(message))
    if (this.#has('sweep removes nothing')) gone = []
    if (this.#has('sweep removes the whole channel')) gone = gone.flatMap((message) => this.#of(message))
    this.#held = this.#held.filter((message) => !gone.includes(message))
    if (this.#has('sweep forgets how far somebody had written')) this.#ever = this.#ever.filter((message) => !gone.includes(message))
    if (this.#has('sweep reuses a number')) {
      for (const message of gone) this.#lastSeqs.set(this.#nameOf(message), this.#of(message).at(-1)?.messageSeq ?? 0)
    }
    return { removedCount: this.#has('sweep does not say how many') ? 0 : gone.length, isDone: !this.#has('sweep is never done') }
  }

  #keepPosition(position: LogPosition | undefined): void {
    if (position !== undefined) this.#positions.set(this.#has('all logs share a position') ? '' : position.log, position.index)
  }

  #revisedPayload(message: Message, change: MessageChange): Uint8Array {
    if (change.kind === 'recalled') return this.#has('a recall keeps the payload') ? message.payload : Buffer.alloc(0)
    return this.#has('the payload of an edit is kept') ? change.payload : Buffer.from(change.payload)
  }

  #isHalf(uid: string, channelID: string): boolean {
    const [first = '', second = ''] = (this.#has('whatever has an @ is a pair') ? channelID.split('@') : personChannelUIDs(channelID)) ?? []
    if (first === '' && second === '') return false
    if (this.#has('half a uid finds the channels of a user')) return first.startsWith(uid) || second.startsWith(uid)
    return uid === first || (uid === second && !this.#has('a person channel is listed for its first half only'))
  }

  #appendBatch({ key, messages }: AppendBatch): AppendResult[] {
    const searched = this.#has('a repeat within one batch is stored twice') ? [...this.#held] : undefined
    return messages.map((message) => {
      const messageSeq = this.#nextSeq(key)
      const earlier = this.#repeatOf(key, message.fromUID, message.clientMsgNo, searched ?? this.#held)
      if (earlier !== undefined && !this.#has('a repeat is stored again')) return this.#answerRepeat(earlier, message, key)
      if (this.#has('a failed append leaves a gap')) this.#lastSeqs.set(this.#nameOf(key), messageSeq)
      const stored = { ...message, ...key, messageSeq, ...this.#kept(message) }
      this.#held.push(stored)
      this.#ever.push(stored)
      this.#originals.set(stored, stored.payload)
      this.#lastSeqs.set(this.#nameOf(key), messageSeq)
      return { status: 'stored', messageID: message.messageID, messageSeq }
    })
  }

  #answerRepeat(earlier: Message, message: Message, key: ChannelKey): AppendResult {
    const isSame = Buffer.compare(this.#comparedPayload(earlier), message.payload) === 0
    if (this.#has('a repeat takes an edit back')) Object.assign(earlier, { payload: this.#originals.get(earlier) })
    if (this.#has('a repeat counts as written')) this.#ever.push({ ...earlier, timestampMs: message.timestampMs })
    if (!isSame && this.#has('a conflict replaces the payload')) Object.assign(earlier, { payload: message.payload })
    if (this.#has('a duplicate uses up a number')) this.#lastSeqs.set(this.#nameOf(key), this.#nextSeq(key))
    return {
      status: isSame || this.#has('a conflict is told as a duplicate') ? 'duplicate' : 'conflict',
      messageID: this.#has('a duplicate is answered with its own id') ? message.messageID : earlier.messageID,
      messageSeq: earlier.messageSeq,
    }
  }

  #comparedPayload(earlier: Message): Uint8Array {
    const { payload, revision } = earlier
    if (revision?.kind === 'edited' && this.#has('an edit changes the verdict on repeats')) return payload
    if (revision?.kind === 'recalled' && this.#has('a recall changes the verdict on repeats')) return payload
    // A conflict that replaced the payload has replaced what it is compared with, too.
    return revision === undefined ? payload : (this.#originals.get(earlier) ?? payload)
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

  readonly #show = (message: Message): Message => {
    if (this.#has("the store's payload is handed out")) return message
    const shown = { ...message, payload: Buffer.from(message.payload) }
    if (message.revision === undefined || this.#has('the revision itself is handed out')) return shown
    return { ...shown, revision: { ...message.revision } }
  }

  #idOf(messageID: string): string {
    return this.#has('ids lose digits') ? BigInt(Number(messageID)).toString() : messageID
  }

  #nameOf({ channelID, channelType }: ChannelKey): string {
    return this.#has('the type of a channel is ignored') ? channelID : `${channelType}:${channelID}`
  }

  #isOf(key: ChannelKey, message: Message): boolean {
    const isSameType = key.channelType === message.channelType || this.#has('the type of a channel is ignored')
    return isSameType && key.channelID === message.channelID
  }

  #of(key: ChannelKey): Message[] {
    return this.#held.filter((message) => this.#isOf(key, message))
  }
}

function isReadable({ expireSec, timestampMs }: Message, nowMs = Date.now()): boolean {
  return expireSec === 0 || timestampMs + expireSec * 1000 > nowMs
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
