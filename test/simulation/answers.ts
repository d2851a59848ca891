import { FrameFlag, FrameType, ReasonCode, type SendackPacket, type SendPacket } from 'imengine/protocol'
import type { Disk } from './disk.ts'
import type { History } from './history.ts'
import { FORBIDDEN } from './house-rules.ts'
import { channelNameOf, isSameSend, type Ledger } from './ledger.ts'
import type { Link } from './link.ts'
import type { SimTime } from './time.ts'

/** PONG waits for nothing but the turn of the engine. */
const PONG_WITHIN_MS = 500

interface Owed {
  readonly channel: string
  readonly clientMsgNo: string
  readonly payload: string
  /** it is for those who are there, and kept nowhere */
  readonly isFleeting?: boolean
}

interface LinkAnswers {
  readonly owed: Map<number, Owed>
  readonly pings: number[]
  /** the engine takes nothing from it any more */
  hasLeft: boolean
}

export interface AnswersOptions {
  readonly history: History
  readonly time: SimTime
  readonly ledger: Ledger
  readonly diskOf: (nodeID: number) => Disk
  /** what is kept nowhere was accepted */
  readonly accepted: (link: Link, send: Pick<Owed, 'channel' | 'clientMsgNo'>, messageID: string) => void
  /** SENDs of one user to one channel that may wait at a node */
  readonly maxWaitingCount: number
}

/** What is answered, and how: P1, P4 and P5 of SENDACK, P6 of PONG, P7 of the bounds of queues. */
export class Answers {
  readonly #options: AnswersOptions
  readonly #links = new Map<Link, LinkAnswers>()
  /** by channel, sender and number: what the sender was told */
  readonly #told = new Map<string, { readonly messageID: string; readonly messageSeq: number }>()
  #hasMore = false

  constructor(options: AnswersOptions) {
    this.#options = options
  }

  opened(link: Link): void {
    this.#links.set(link, { owed: new Map(), pings: [], hasLeft: false })
  }

  /** It takes nothing more from it, which its owner may not have noticed. */
  left(link: Link): void {
    const answers = this.#links.get(link)
    if (answers !== undefined) answers.hasLeft = true
  }

  ended(link: Link): void {
    this.#links.delete(link)
  }

  given(link: Link, frame: SendPacket, payload: string): void {
    const answers = this.#links.get(link)
    if (answers === undefined || answers.hasLeft || !link.isOpen) return
    const channel = channelNameOf(link.device.uid, frame)
    answers.owed.set(frame.clientSeq, { channel, clientMsgNo: frame.clientMsgNo, payload, isFleeting: (frame.flags & FrameFlag.NoPersist) !== 0 })
    this.#hasMore = true
  }

  pinged(link: Link): void {
    if (link.isOpen) this.#links.get(link)?.pings.push(this.#options.time.nowMs + PONG_WITHIN_MS)
  }

  ponged(link: Link): void {
    this.#links.get(link)?.pings.shift()
  }

  answered(link: Link, { clientSeq, reasonCode, messageID, messageSeq }: SendackPacket): void {
    const { history } = this.#options
    const owed = this.#links.get(link)?.owed
    const send = owed?.get(clientSeq)
    if (send === undefined) {
      history.broken('P5', `a SENDACK to ${link.device.deviceID} for ${clientSeq}, which has been answered or was never sent`)
      return
    }
    owed!.delete(clientSeq)
    if (reasonCode !== ReasonCode.Success) return
    if (send.payload.startsWith(FORBIDDEN)) history.broken('P5', `${send.clientMsgNo} of ${link.device.deviceID} was refused by the host, and is answered with success`)
    if (send.isFleeting !== true) this.acknowledged(link.nodeID, { fromUID: link.device.uid, ...send }, { messageID, messageSeq })
    else if (messageSeq === 0) this.#options.accepted(link, send, messageID)
    else history.broken('P1', `${send.clientMsgNo} of ${link.device.deviceID} is kept nowhere, and is acknowledged as ${messageSeq}`)
  }

  /** A sender was told that a message is stored: it is, there, and nobody was or is told anything else. */
  acknowledged(nodeID: number, send: Owed & { readonly fromUID: string }, answer: { readonly messageID: string; readonly messageSeq: number }): void {
    const { history, ledger, diskOf } = this.#options
    const { channel, fromUID, clientMsgNo, payload } = send
    const what = `${fromUID}'s ${clientMsgNo} in ${channel}`
    const name = `${channel}/${fromUID}/${clientMsgNo}`
    const told = this.#told.get(name)
    if (told !== undefined && (told.messageID !== answer.messageID || told.messageSeq !== answer.messageSeq)) {
      history.broken('P4', `${what} was answered with ${told.messageSeq} and then with ${answer.messageSeq}`)
    }
    this.#told.set(name, answer)
    const kept = ledger.at(diskOf(nodeID), channel, answer.messageSeq)
    if (kept === undefined) history.broken('P1', `${what} is acknowledged as ${answer.messageSeq} and not durable`)
    else if (kept.messageID !== answer.messageID || !isSameSend(kept, send)) history.broken('P1', `${what} is acknowledged as ${answer.messageSeq}, which is ${kept.fromUID}'s ${kept.clientMsgNo}`)
    else if (kept.payload !== payload) history.broken('P4', `${what} is acknowledged with another payload than it was stored with`)
  }

  /** Behind every step. */
  check(): void {
    const { history, time } = this.#options
    for (const [link, { pings, hasLeft }] of this.#links) {
      if (pings.length === 0 || hasLeft || link.wasStalled || pings[0]! > time.nowMs) continue
      pings.length = 0
      history.broken('P6', `a PING of ${link.device.deviceID} has no PONG`)
    }
    if (this.#hasMore) this.#checkBounds()
    this.#hasMore = false
  }

  /** When everything has come to rest: nobody waits any more. */
  checkEnd(): void {
    for (const [link, { owed, hasLeft }] of this.#links) {
      for (const { clientMsgNo } of hasLeft ? [] : owed.values()) {
        this.#options.history.broken('P5', `${clientMsgNo} of ${link.device.deviceID} has no SENDACK, and its connection lives`)
      }
    }
  }

  #checkBounds(): void {
    const counts = new Map<string, number>()
    for (const [link, { owed, hasLeft }] of this.#links) {
      if (hasLeft || link.wasStalled) continue
      for (const { channel } of owed.values()) {
        const name = `${channel} of ${link.device.uid} at node ${link.nodeID}`
        counts.set(name, (counts.get(name) ?? 0) + 1)
      }
    }
    for (const [name, count] of counts) {
      if (count > this.#options.maxWaitingCount) this.#options.history.broken('P7', `${count} SENDs to ${name} wait, and nobody was told that there is no room`)
    }
  }
}

export const isSend = (frame: { readonly type: number }): frame is SendPacket => frame.type === FrameType.SEND
