import type { RecvPacket } from 'imengine/protocol'
import type { Disk } from './disk.ts'
import type { History } from './history.ts'
import { channelNameOf, isSameSend, keyOfName, type Kept, type Ledger } from './ledger.ts'
import type { Link } from './link.ts'
import type { Members } from './members.ts'
import { UIDS, type Topology } from './plan.ts'

/** What one connection has been sent. */
interface LinkArrivals {
  readonly seenIDs: Set<string>
  /** by channel, and where nodes number by turns, by the node that has stored it: the highest number so far */
  readonly highest: Map<string, number>
  /** what was stored while it was there, and has to come */
  readonly due: Map<string, Kept>
  /** by channel and number of the sender: in which order they were given to the engine */
  readonly places: Map<string, number>
  /** by channel: the place of the last one that was stored */
  readonly lastPlaces: Map<string, number>
  hasLeft: boolean
}

export interface ArrivalsOptions {
  readonly history: History
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

  constructor(options: ArrivalsOptions) {
    this.#options = options
  }

  opened(link: Link): void {
    this.#links.set(link, { seenIDs: new Set(), highest: new Map(), due: new Map(), places: new Map(), lastPlaces: new Map(), hasLeft: false })
  }

  left(link: Link): void {
    const arrivals = this.#links.get(link)
    if (arrivals !== undefined) arrivals.hasLeft = true
  }

  ended(link: Link): void {
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

  /** It is durable now, written by a node. */
  kept(channel: string, kept: Kept): void {
    for (const [link, arrivals] of this.#links) {
      const { places, due, hasLeft } = arrivals
      const place = link.device.uid === kept.fromUID ? places.get(`${channel}/${kept.clientMsgNo}`) : undefined
      if (place !== undefined) {
        // Under a log every node stores it: that of its own node counts.
        if (link.nodeID === kept.nodeID) this.#checkPlace(link, arrivals, channel, kept, place)
      } else if (link.nodeID === kept.nodeID && link.isOpen && !hasLeft && this.#isFor(link, channel)) due.set(kept.messageID, kept)
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
    const kept = ledger.at(diskOf(link.nodeID), channel, messageSeq)
    const what = `${channel} ${messageSeq} to ${link.device.deviceID}`
    if (kept === undefined) return history.broken('P1', `${what} is delivered and not durable`)
    if (kept.messageID !== messageID || kept.payload !== payload || !isSameSend(kept, recv)) return history.broken('P1', `${what} is not what is stored there`)
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
    for (const [link, { due, hasLeft }] of this.#links) {
      if (hasLeft) continue
      for (const { messageID, messageSeq, nodeID } of due.values()) {
        if (this.#undelivered.has(`${nodeID}/${messageID}/`) || this.#undelivered.has(`${nodeID}/${messageID}/${link.device.uid}`)) continue
        this.#options.history.broken('P7', `message ${messageSeq} (${messageID}) never came to ${link.device.deviceID}, which was there all the time, and nobody was told`)
      }
    }
  }

  /** After everybody has logged in once more: every member has everything since they joined. */
  checkComplete(disk: Disk): void {
    const { history, ledger } = this.#options
    const { channels, cursors } = disk.held
    for (const [channel, log] of ledger.channels(disk)) {
      const key = keyOfName(channel)
      for (const uid of UIDS) {
        const isMember = key.channelType === 1 ? key.channelID.split('@').includes(uid) : channels.member(key, uid) !== undefined
        if (!isMember) continue
        const { joinSeq } = cursors.cursor(uid, key) as { joinSeq: number }
        const received = this.#receivedBy(uid, channel)
        const missing = log.filter(({ messageID, messageSeq, fromUID }) => messageSeq >= joinSeq && fromUID !== uid && !received.has(messageID))
        if (missing.length > 0) history.broken('P1', `${uid} has never got ${missing.map(({ messageSeq }) => messageSeq).join(', ')} of ${channel}`)
      }
    }
  }

  /** Certainly, as the node knows it that has stored the message. */
  #isFor({ nodeID, device }: Link, channel: string): boolean {
    const { members, topology, diskOf, cacheMs } = this.#options
    const key = keyOfName(channel)
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
