import { FrameFlag, type RecvPacket } from 'imengine/protocol'
import type { Disk } from './disk.ts'
import type { History } from './history.ts'
import { channelNameOf, isSameSend, keyOfName, sourceOf, type Kept, type Ledger } from './ledger.ts'
import type { Link } from './link.ts'
import type { Members } from './members.ts'
import { UIDS, type Topology } from './plan.ts'
import type { SimTime } from './time.ts'

interface Due {
  readonly channel: string
  readonly messageSeq: number
  readonly nodeID: number
  readonly sinceMs: number
}

/** Longer than anything keeps a message from a connection that lasts: every wait ends, with the message or with `undelivered`. */
const DUE_WITHIN_MS = 4_000

/** Who is to get a message is asked when it has been stored: who begins to leave within so long of that may have left by then. */
const ASKED_WITHIN_MS = 1_000

/** What one connection has been sent. */
interface LinkArrivals {
  readonly seenIDs: Set<string>
  /** by channel, and where nodes number by turns, by the node that has stored it: the highest number so far */
  readonly highest: Map<string, number>
  /** what was stored, or accepted for those who are there, while it was there, and has to come */
  readonly due: Map<string, Due>
  /** by channel and number of the sender: in which order they were given to the engine */
  readonly places: Map<string, number>
  /** by channel: the place of the last one that was stored */
  readonly lastPlaces: Map<string, number>
  readonly openedMs: number
  hasLeft: boolean
}

export interface ArrivalsOptions {
  readonly history: History
  readonly time: SimTime
  readonly ledger: Ledger
  readonly members: Members
  readonly topology: Topology
  readonly diskOf: (nodeID: number) => Disk
  /** for how long a node may go by members that it has read */
  readonly cacheMs: number
}

/** What arrives where, and in which order: P3, P1 as receivers see it, and P7's "nothing is dropped silently". */
export class Arrivals {
  readonly #options: ArrivalsOptions
  readonly #links = new Map<Link, LinkArrivals>()
  /** by user and channel: what their devices have */
  readonly #received = new Map<string, Set<string>>()
  /** by node and message, of a user or of all: the host was told that it did not arrive */
  readonly #undelivered = new Set<string>()
  /** sent more than once: no place in any order */
  readonly #repeated = new Set<string>()
  readonly #sent = new Set<string>()
  /** by channel, sender and number, of what is kept nowhere: what it may say */
  readonly #fleeting = new Map<string, { readonly payloads: Set<string>; sentMs: number }>()
  /** of that: what its sender was told before */
  readonly #accepted = new Set<string>()

  constructor(options: ArrivalsOptions) {
    this.#options = options
  }

  opened(link: Link): void {
    this.#links.set(link, { seenIDs: new Set(), highest: new Map(), due: new Map(), places: new Map(), lastPlaces: new Map(), openedMs: this.#options.time.nowMs, hasLeft: false })
  }

  left(link: Link): void {
    const arrivals = this.#links.get(link)
    if (arrivals === undefined) return
    this.#checkDue(link, arrivals, DUE_WITHIN_MS)
    arrivals.hasLeft = true
  }

  ended(link: Link): void {
    const arrivals = this.#links.get(link)
    if (arrivals !== undefined) this.#checkDue(link, arrivals, DUE_WITHIN_MS)
    this.#links.delete(link)
  }

  undelivered(nodeID: number, messageID: string, uid: string | undefined): void {
    this.#undelivered.add(`${nodeID}/${messageID}/${uid ?? ''}`)
  }

  /** A SEND has come in on this connection: it need not come back, and has its place. */
  sent(link: Link, channel: string, clientMsgNo: string): void {
    const places = this.#links.get(link)?.places
    const name = `${channel}/${clientMsgNo}`
    const ofUser = `${link.device.uid}/${name}`
    if (this.#sent.has(ofUser)) this.#repeated.add(ofUser)
    this.#sent.add(ofUser)
    if (places?.has(name) === false) places.set(name, places.size)
  }

  /** A SEND that is kept nowhere. */
  sentFleeting(link: Link, channel: string, clientMsgNo: string, payload: string): void {
    const name = `${channel}/${link.device.uid}/${clientMsgNo}`
    const sent = this.#fleeting.get(name) ?? { payloads: new Set<string>(), sentMs: 0 }
    sent.payloads.add(payload)
    sent.sentMs = this.#options.time.nowMs
    this.#fleeting.set(name, sent)
  }

  /** Its sender has the answer: it is on its way to who was there when it was sent. The answer may have waited for a client that hung. */
  acceptedFleeting(sender: Link, { channel, clientMsgNo }: { readonly channel: string; readonly clientMsgNo: string }, messageID: string): void {
    if (this.#accepted.has(messageID)) return // a repeat: whoever was there has it
    this.#accepted.add(messageID)
    const sentMs = this.#fleeting.get(`${channel}/${sender.device.uid}/${clientMsgNo}`)?.sentMs ?? Infinity
    for (const [link, { due, seenIDs, openedMs, hasLeft }] of this.#links) {
      if (link === sender || openedMs > sentMs || link.nodeID !== sender.nodeID || !link.isOpen || hasLeft || seenIDs.has(messageID) || !this.#isFor(link, channel)) continue
      due.set(messageID, { channel, messageSeq: 0, nodeID: sender.nodeID, sinceMs: this.#options.time.nowMs })
    }
  }

  /** A user is being removed from a group: what was stored just before may come, and need not. */
  leaving(group: string, uid: string): void {
    const { nowMs } = this.#options.time
    for (const [link, { due }] of this.#links) {
      if (link.device.uid !== uid) continue
      for (const [messageID, { channel, sinceMs }] of due) {
        if (sourceOf(channel) === group && nowMs - sinceMs < ASKED_WITHIN_MS) due.delete(messageID)
      }
    }
  }

  /** It is durable now, written by a node. */
  kept(channel: string, kept: Kept): void {
    for (const [link, arrivals] of this.#links) {
      const { places, due, hasLeft } = arrivals
      const place = link.device.uid === kept.fromUID ? places.get(`${channel}/${kept.clientMsgNo}`) : undefined
      if (place !== undefined) {
        // Under a log every node stores it: that of its own node counts.
        if (link.nodeID === kept.nodeID) this.#checkPlace(link, arrivals, channel, kept, place)
      } else if (link.nodeID === kept.nodeID && link.isOpen && !hasLeft && this.#isFor(link, channel)) {
        due.set(kept.messageID, { channel, messageSeq: kept.messageSeq, nodeID: kept.nodeID, sinceMs: this.#options.time.nowMs })
      }
    }
  }

  /** The engine has written it to this connection. @param payload  undefined when it cannot be read */
  written(link: Link, recv: RecvPacket, payload: string | undefined): void {
    const { history, ledger, diskOf, topology } = this.#options
    const arrivals = this.#links.get(link)
    if (arrivals === undefined) return
    const channel = channelNameOf(link.device.uid, recv)
    const { messageID, messageSeq } = recv
    arrivals.due.delete(messageID)
    if ((recv.flags & FrameFlag.NoPersist) !== 0) return this.#writtenFleeting(link, arrivals, recv, payload)
    const kept = ledger.at(diskOf(link.nodeID), channel, messageSeq)
    const what = `${channel} ${messageSeq} to ${link.device.deviceID}`
    if (kept === undefined) return history.broken('P1', `${what} is delivered and not durable`)
    const isShown = ledger.isShownAs(diskOf(link.nodeID), { channel, seq: messageSeq, isLate: link.wasStalled }, payload)
    if (kept.messageID !== messageID || !isShown || !isSameSend(kept, recv)) return history.broken('P1', `${what} is not what is stored there`)
    if (arrivals.seenIDs.has(messageID)) return
    arrivals.seenIDs.add(messageID)
    // Where nodes number by turns, what they push may overtake each other, and only that.
    const lane = topology === 'shared' ? `${channel} by ${kept.nodeID}` : channel
    const highest = arrivals.highest.get(lane) ?? 0
    if (messageSeq < highest) history.broken('P3', `${what} comes behind ${highest}`)
    arrivals.highest.set(lane, Math.max(highest, messageSeq))
    this.#checkMember(link, channel, kept)
  }

  /** It has arrived. */
  received(link: Link, recv: RecvPacket): void {
    this.#receivedBy(link.device.uid, channelNameOf(link.device.uid, recv)).add(recv.messageID)
  }

  /** When everything has come to rest: whoever was there when it was stored has got it, or the host was told. */
  checkEnd(): void {
    for (const [link, arrivals] of this.#links) this.#checkDue(link, arrivals, 0)
  }

  /** What has been due for so long at this connection must have come, or the host was told. */
  #checkDue(link: Link, { due, hasLeft }: LinkArrivals, forMs: number): void {
    if (hasLeft || (link.wasStalled && forMs > 0)) return
    const { history, time, ledger, diskOf } = this.#options
    for (const [messageID, { channel, messageSeq, nodeID, sinceMs }] of due) {
      if (time.nowMs - sinceMs < forMs || ledger.isRecalled(diskOf(nodeID), channel, messageSeq)) continue
      if (this.#undelivered.has(`${nodeID}/${messageID}/`) || this.#undelivered.has(`${nodeID}/${messageID}/${link.device.uid}`)) continue
      history.broken('P7', `message ${messageSeq} (${messageID}) of ${channel} never came to ${link.device.deviceID}, which was there all the time, and nobody was told`)
    }
  }

  /** Kept nowhere: it has no number, comes once, and says what was sent. */
  #writtenFleeting(link: Link, { seenIDs }: LinkArrivals, { flags, channelID, channelType, fromUID, clientMsgNo, messageID, messageSeq }: RecvPacket, payload: string | undefined): void {
    const { history, topology } = this.#options
    const channel = channelNameOf(link.device.uid, { channelID, channelType, flags })
    const what = `${fromUID}'s ${clientMsgNo} of ${channel}, which is kept nowhere,`
    if (messageSeq !== 0) history.broken('P2', `${what} has the number ${messageSeq}`)
    // What nodes tell each other may arrive more than once.
    if (seenIDs.has(messageID) && topology === 'single') history.broken('P4', `${what} comes twice to ${link.device.deviceID}`)
    if (payload === undefined || !this.#fleeting.get(`${channel}/${fromUID}/${clientMsgNo}`)?.payloads.has(payload)) history.broken('P1', `${what} is not what was sent`)
    seenIDs.add(messageID)
  }

  /** After everybody has logged in once more: every member has everything since they joined. */
  checkComplete(disk: Disk): void {
    const { history, ledger } = this.#options
    const { channels, cursors } = disk.held
    for (const [channel, log] of ledger.channels(disk)) {
      const key = keyOfName(channel)
      for (const uid of UIDS) {
        const source = keyOfName(sourceOf(channel))
        const isMember = key.channelType === 1 ? source.channelID.split('@').includes(uid) : channels.member(source, uid) !== undefined
        if (!isMember) continue
        const { joinSeq } = cursors.cursor(uid, key) as { joinSeq: number }
        const received = this.#receivedBy(uid, channel)
        const missing = log.filter(({ messageID, messageSeq, fromUID }) => messageSeq >= joinSeq && fromUID !== uid && !received.has(messageID) && !ledger.isRecalled(disk, channel, messageSeq))
        if (missing.length > 0) history.broken('P1', `${uid} has never got ${missing.map(({ messageSeq }) => messageSeq).join(', ')} of ${channel}`)
      }
    }
  }

  /** Certainly, as the node knows it that has stored the message. */
  #isFor({ nodeID, device }: Link, channel: string): boolean {
    const { members, topology, diskOf, cacheMs } = this.#options
    const key = keyOfName(sourceOf(channel))
    if (!members.isIn(channel, device.uid, topology === 'shared' ? cacheMs : 0)) return false
    return key.channelType === 1 || diskOf(nodeID).held.channels.member(key, device.uid) !== undefined
  }

  #receivedBy(uid: string, channel: string): Set<string> {
    const name = `${uid}/${channel}`
    let received = this.#received.get(name)
    if (received === undefined) this.#received.set(name, (received = new Set<string>()))
    return received
  }

  /** SENDs of one connection are handled in the order in which they arrive: so are they numbered. */
  #checkPlace(link: Link, { lastPlaces }: LinkArrivals, channel: string, kept: Kept, place: number): void {
    if (this.#repeated.has(`${kept.fromUID}/${channel}/${kept.clientMsgNo}`)) return
    const last = lastPlaces.get(channel) ?? -1
    if (place < last) this.#options.history.broken('P3', `${kept.clientMsgNo} of ${link.device.deviceID} is stored behind a later one`)
    lastPlaces.set(channel, Math.max(place, last))
  }

  /** Nobody gets what was said after they had left. */
  #checkMember(link: Link, channel: string, { messageID, messageSeq }: Kept): void {
    const { history, ledger, members, topology, cacheMs } = this.#options
    const outSinceMs = members.outSinceMs(channel, link.device.uid)
    const firstMs = ledger.firstMs(channel, messageID)!
    if (outSinceMs === undefined || firstMs <= outSinceMs + (topology === 'shared' ? cacheMs : 0)) return
    history.broken('P3', `${channel} ${messageSeq} is delivered to ${link.device.deviceID}, who had left when it was stored`)
  }
}
