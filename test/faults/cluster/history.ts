import type { ChannelKey } from 'imengine'
import { partitionOf } from '../../../src/adapters/nats/partitions.ts'
import type { Answers, Stored } from './cluster-node.ts'

/** A message that a client wants to be in a channel, however often it has to say so. */
export interface Sent {
  readonly uid: string
  readonly clientMsgNo: string
  /** where the engines keep it */
  readonly key: ChannelKey
  /** as the client names it */
  readonly channelID: string
  readonly text: string
}

/** Who is in a channel. */
export interface Room {
  readonly key: ChannelKey
  readonly uids: readonly string[]
}

/** A message as it has come to a client. */
export interface Received {
  readonly key: ChannelKey
  readonly messageSeq: number
  readonly messageID: string
  readonly fromUID: string
  readonly clientMsgNo: string
  readonly text: string
}

interface Acked extends Sent {
  readonly messageID: string
  readonly messageSeq: number
}

/** What the nodes say is in the channels, node by node, each in the order of the rooms. */
export type Logs = readonly Answers['log'][]

const MAX_VIOLATIONS = 20
export const nameOf = ({ channelID, channelType }: ChannelKey): string => `${channelType}:${channelID}`

/** One connection of one client, as far as order is concerned. */
export class Session {
  readonly uid: string
  readonly name: string
  /** by channel, in the order in which they were sent here for the first time of all */
  readonly firstTries = new Map<string, string[]>()
  /** by channel: what has been delivered here */
  readonly delivered = new Map<string, Set<number>>()
  readonly newest = new Map<string, number>()

  constructor(uid: string, name: string) {
    this.uid = uid
    this.name = name
  }
}

/**
 * What clients have sent, been told and been given over one scenario, and what must be true of it: nothing acknowledged is lost,
 * stored twice, or elsewhere than was told; numbers have no gap; all nodes have the same; everybody has got everything, in order.
 */
export class History {
  readonly rooms: readonly Room[]
  readonly #startedMs = performance.now()
  readonly #partitionCount: number
  readonly #sent = new Map<string, Sent>()
  readonly #acked = new Map<string, Acked>()
  /** acknowledged when they were sent for the first time */
  readonly #atFirst = new Set<string>()
  readonly #received = new Map<string, Map<string, Received>>()
  readonly #sessions: Session[] = []
  /** when, and of which partition */
  readonly #acks: { readonly atMs: number; readonly partition: number }[] = []
  readonly violations: string[] = []
  violationCount = 0
  triedAgainCount = 0
  repeatedDeliveryCount = 0

  constructor(options: { readonly rooms: readonly Room[]; readonly partitionCount: number }) {
    this.rooms = options.rooms
    this.#partitionCount = options.partitionCount
  }

  get ackedCount(): number {
    return this.#acked.size
  }

  get sessionCount(): number {
    return this.#sessions.length
  }

  sessionsOf(uid: string): string[] {
    return this.#sessions.filter((session) => session.uid === uid).map(({ name }) => name)
  }

  session(uid: string, nodeIndex: number): Session {
    const atMs = Math.round(performance.now() - this.#startedMs)
    const session = new Session(uid, `${uid}, connection ${this.#sessions.length} to node ${nodeIndex + 1} at ${atMs} ms`)
    this.#sessions.push(session)
    return session
  }

  violate(what: string): void {
    this.violationCount++
    if (this.violations.length < MAX_VIOLATIONS) this.violations.push(`${Math.round(performance.now() - this.#startedMs)} ms: ${what}`)
  }

  sent(session: Session, message: Sent): void {
    if (this.#sent.has(message.clientMsgNo)) {
      this.triedAgainCount++
      return
    }
    this.#sent.set(message.clientMsgNo, message)
    listIn(session.firstTries, nameOf(message.key)).push(message.clientMsgNo)
  }

  acked(session: Session, message: Sent, messageID: string, messageSeq: number): void {
    const before = this.#acked.get(message.clientMsgNo)
    if (before !== undefined && (before.messageID !== messageID || before.messageSeq !== messageSeq)) {
      this.violate(`${message.clientMsgNo} was acknowledged as ${before.messageID} at ${before.messageSeq}, then as ${messageID} at ${messageSeq}`)
    }
    this.#acks.push({ atMs: performance.now(), partition: partitionOf(message.key, this.#partitionCount) })
    if (before !== undefined) return
    this.#acked.set(message.clientMsgNo, { ...message, messageID, messageSeq })
    if (session.firstTries.get(nameOf(message.key))?.includes(message.clientMsgNo) === true) this.#atFirst.add(message.clientMsgNo)
  }

  received(session: Session, message: Received): void {
    const channel = nameOf(message.key)
    const { messageSeq, clientMsgNo } = message
    const place = placeOf(message.key, messageSeq)
    const mine = this.#received.get(session.uid) ?? new Map<string, Received>()
    this.#received.set(session.uid, mine)
    const before = mine.get(place)
    if (before === undefined) mine.set(place, message)
    else if (before.messageID !== message.messageID || before.text !== message.text) {
      this.violate(`${session.name} got ${clientMsgNo} at ${place}, and before that ${before.clientMsgNo}`)
    }
    const delivered = session.delivered.get(channel) ?? new Set()
    session.delivered.set(channel, delivered)
    if (delivered.has(messageSeq)) {
      this.repeatedDeliveryCount++ // sent once more because its RECVACK has not come: it may come behind later ones
      return
    }
    delivered.add(messageSeq)
    const newest = session.newest.get(channel) ?? 0
    if (messageSeq < newest) this.violate(`${session.name} got ${place} behind ${newest}`)
    session.newest.set(channel, Math.max(newest, messageSeq))
  }

  /** Longest time without any SENDACK from `fromMs` of `performance.now()` on, over all, and of the worst partition. */
  pauses(fromMs: number): { readonly anyMs: number; readonly partitionMs: number } {
    const longest = (partition: number | undefined): number => {
      let lastMs = fromMs
      let pauseMs = 0
      for (const ack of this.#acks) {
        if (ack.atMs < fromMs || (partition !== undefined && ack.partition !== partition)) continue
        pauseMs = Math.max(pauseMs, ack.atMs - lastMs)
        lastMs = ack.atMs
      }
      return Math.round(pauseMs)
    }
    const partitions = [...new Set(this.#acks.map(({ partition }) => partition))]
    return { anyMs: longest(undefined), partitionMs: Math.max(0, ...partitions.map(longest)) }
  }

  /** Messages that the log has and somebody has not got, as `uid channel at seq`, the first of them. */
  missing(log: Answers['log'], mostCount = MAX_VIOLATIONS): string[] {
    const missing: string[] = []
    for (const [index, { key, uids }] of this.rooms.entries()) {
      for (const uid of uids) {
        const mine = this.#received.get(uid)
        for (const { messageSeq, fromUID, clientMsgNo } of log[index]!.messages) {
          if (fromUID === uid || mine?.has(placeOf(key, messageSeq)) === true) continue
          missing.push(`${uid} has not got ${placeOf(key, messageSeq)} (${clientMsgNo})`)
          if (missing.length === mostCount) return missing
        }
      }
    }
    return missing
  }

  /** Everything that must be true of what the nodes hold in the end. Violations are kept. */
  check(logs: Logs): void {
    for (const [index, { key }] of this.rooms.entries()) {
      const stored = logs.map((log) => log[index]!)
      this.#checkAlike(key, stored)
      this.#checkChannel(key, stored[0]!)
    }
    this.checkAcked(logs, this.rooms)
    for (const { clientMsgNo } of this.#sent.values()) if (!this.#acked.has(clientMsgNo)) this.violate(`${clientMsgNo} was never acknowledged`)
    this.#checkSendOrder()
    this.#checkReceived(logs[0]!)
  }

  #checkAlike(key: ChannelKey, stored: Answers['log']): void {
    const [first, ...others] = stored
    for (const [index, { messages, lastSeq }] of others.entries()) {
      if (lastSeq !== first!.lastSeq) this.violate(`${nameOf(key)} ends at ${first!.lastSeq} on node 1, at ${lastSeq} on node ${index + 2}`)
      for (let i = 0; i < Math.max(messages.length, first!.messages.length); i++) {
        const [here, there] = [first!.messages[i], messages[i]]
        if (JSON.stringify(here) === JSON.stringify(there)) continue
        this.violate(`${nameOf(key)}: node 1 has ${show(here)}, node ${index + 2} has ${show(there)}`)
        break
      }
    }
  }

  #checkChannel(key: ChannelKey, { lastSeq, messages }: Answers['log'][number]): void {
    if (lastSeq !== messages.length) this.violate(`${nameOf(key)} ends at ${lastSeq} and has ${messages.length} messages`)
    const seen = new Map<string, number>()
    for (const [index, message] of messages.entries()) {
      const { messageSeq, clientMsgNo, fromUID, text } = message
      const place = placeOf(key, messageSeq)
      if (messageSeq !== index + 1) this.violate(`${place} stands where ${index + 1} should`)
      if (seen.has(clientMsgNo)) this.violate(`${clientMsgNo} is stored twice: at ${seen.get(clientMsgNo)} and as ${place}`)
      seen.set(clientMsgNo, messageSeq)
      const sent = this.#sent.get(clientMsgNo)
      if (sent === undefined) this.violate(`${place} is ${clientMsgNo}, which nobody has sent`)
      else if (sent.uid !== fromUID || sent.text !== text || nameOf(sent.key) !== nameOf(key)) this.violate(`${place} is not what ${sent.uid} sent as ${clientMsgNo}`)
    }
  }

  /** What was acknowledged in these rooms is where the client was told, on every node. */
  checkAcked(logs: Logs, rooms: readonly Room[]): void {
    for (const [node, log] of logs.entries()) {
      const byChannel = new Map(rooms.map(({ key }, index) => [nameOf(key), log[index]!.messages]))
      for (const { key, clientMsgNo, messageID, messageSeq } of this.#acked.values()) {
        const messages = byChannel.get(nameOf(key))
        const found = messages?.[messageSeq - 1]
        if (messages === undefined || (found?.clientMsgNo === clientMsgNo && found.messageID === messageID)) continue
        this.violate(`${clientMsgNo} was acknowledged as ${messageID} at ${placeOf(key, messageSeq)}, where node ${node + 1} has ${show(found)}`)
      }
    }
  }

  /** What one connection has sent, and been told at the first try that it is stored, is stored in that order. */
  #checkSendOrder(): void {
    for (const { name, firstTries } of this.#sessions) {
      for (const [channel, numbers] of firstTries) {
        let last: Acked | undefined
        for (const number of numbers) {
          const acked = this.#atFirst.has(number) ? this.#acked.get(number) : undefined
          if (acked === undefined) continue
          if (last !== undefined && acked.messageSeq < last.messageSeq) {
            this.violate(`${name} sent ${number} behind ${last.clientMsgNo}, and ${channel} has them at ${acked.messageSeq} and ${last.messageSeq}`)
          }
          last = acked
        }
      }
    }
  }

  #checkReceived(log: Answers['log']): void {
    for (const what of this.missing(log)) this.violate(what)
    const byPlace = new Map(this.rooms.flatMap(({ key }, index) => log[index]!.messages.map((message) => [placeOf(key, message.messageSeq), message] as const)))
    for (const [uid, received] of this.#received) {
      for (const [place, message] of received) {
        const stored = byPlace.get(place)
        if (stored?.messageID === message.messageID && stored.text === message.text && stored.fromUID === message.fromUID) continue
        this.violate(`${uid} got ${message.clientMsgNo} at ${place}, where there is ${show(stored)}`)
      }
    }
  }
}

function placeOf(key: ChannelKey, messageSeq: number): string {
  return `${nameOf(key)} at ${messageSeq}`
}

function show(message: Stored | undefined): string {
  if (message === undefined) return 'nothing'
  return `${message.clientMsgNo} as ${message.messageID} at ${message.messageSeq} (${message.timestampMs}, ${message.text.length} characters)`
}

function listIn(lists: Map<string, string[]>, name: string): string[] {
  const list = lists.get(name) ?? []
  lists.set(name, list)
  return list
}
