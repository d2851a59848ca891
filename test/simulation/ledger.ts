import { personChannelID, type AppendBatch, type AppendResult, type ChannelKey, type Message, type MessageStore } from 'imengine'
import { FrameFlag } from 'imengine/protocol'
import type { Disk } from './disk.ts'
import type { History } from './history.ts'
import { asStored, FORBIDDEN } from './house-rules.ts'
import type { SimTime } from './time.ts'

/** A message that a disk holds. */
export interface Kept {
  readonly messageID: string
  readonly messageSeq: number
  readonly fromUID: string
  readonly clientMsgNo: string
  /** as it was stored; what it was changed to is with the ledger */
  readonly payload: string
  /** the node that has written it */
  readonly nodeID: number
}

/** How the checks name a channel, whoever looks at it. */
export function channelName({ channelID, channelType }: ChannelKey): string {
  return `${channelType}:${channelID}`
}

/** Commands are numbered apart from the messages of their channel. */
const COMMANDS = '____cmd'

/** The same, as one user names it, with the flags of SEND or RECV. */
export function channelNameOf(uid: string, { channelID, channelType, flags = 0 }: ChannelKey & { readonly flags?: number }): string {
  const name = channelName({ channelID: channelType === 1 ? personChannelID(uid, channelID) : channelID, channelType })
  return (flags & FrameFlag.SyncOnce) === 0 ? name : name + COMMANDS
}

/** Of commands: the channel that they are about, which has the members. */
export function sourceOf(channel: string): string {
  return channel.endsWith(COMMANDS) ? channel.slice(0, -COMMANDS.length) : channel
}

export function keyOfName(name: string): ChannelKey {
  const at = name.indexOf(':')
  return { channelID: name.slice(at + 1), channelType: Number(name.slice(0, at)) }
}

/** What a message was, and what it has been changed to, on one disk. */
interface Revisions {
  /** by version, and 0 is how it was stored */
  readonly payloads: string[]
  isRecalled: boolean
  /** whoever has changed it was told so: nobody is shown an earlier one from then on */
  toldVersion: number
  toldMs: number
}

/**
 * What every disk has taken, written down beside it as it happens. P2 and the half of P4 that concerns the store are judged
 * here; the other promises ask what is durable.
 */
export class Ledger {
  readonly #history: History
  readonly #time: SimTime
  readonly #disks = new Map<Disk, Map<string, Kept[]>>()
  /** by channel and id: when it was durable for the first time, on whatever disk */
  readonly #firstMs = new Map<string, number>()
  readonly #revisions = new Map<Disk, Map<string, Revisions>>()

  constructor(history: History, time: SimTime) {
    this.#history = history
    this.#time = time
  }

  channels(disk: Disk): ReadonlyMap<string, readonly Kept[]> {
    return this.#channelsOf(disk)
  }

  at(disk: Disk, channel: string, seq: number): Kept | undefined {
    return this.#channelsOf(disk).get(channel)?.[seq - 1]
  }

  firstMs(channel: string, messageID: string): number | undefined {
    return this.#firstMs.get(`${channel}/${messageID}`)
  }

  find(disk: Disk, channel: string, fromUID: string, clientMsgNo: string): Kept | undefined {
    return this.#channelsOf(disk).get(channel)?.find((kept) => isSameSend(kept, { fromUID, clientMsgNo }))
  }

  isRecalled(disk: Disk, channel: string, seq: number): boolean {
    return this.#revisionsOf(disk, channel, seq)?.isRecalled ?? false
  }

  /** May somebody be shown this as that message? @param isLate  it may have been written a while ago */
  isShownAs(disk: Disk, { channel, seq, isLate }: { channel: string; seq: number; isLate: boolean }, payload: string | undefined): boolean {
    const revisions = this.#revisionsOf(disk, channel, seq)
    if (revisions === undefined) return this.at(disk, channel, seq)?.payload === payload
    const { payloads, toldVersion, toldMs } = revisions
    return payload !== undefined && payloads.slice(!isLate && toldMs < this.#time.nowMs ? toldVersion : 0).includes(payload)
  }

  /** A disk has changed a message, or was asked to and has left it as it was. */
  revised(disk: Disk, { channelID, channelType, messageSeq, payload, revision }: Message): void {
    const channel = channelName({ channelID, channelType })
    const kept = this.at(disk, channel, messageSeq)
    if (kept === undefined || revision === undefined) return this.#history.broken('P1', `${disk.name} has changed ${messageSeq} of ${channel}, and has no such message`)
    let revisions = this.#revisionsOf(disk, channel, messageSeq)
    if (revisions === undefined) {
      revisions = { payloads: [kept.payload], isRecalled: false, toldVersion: 0, toldMs: 0 }
      const ofDisk = this.#revisions.get(disk) ?? new Map<string, Revisions>()
      this.#revisions.set(disk, ofDisk.set(`${channel}/${messageSeq}`, revisions))
    }
    const text = Buffer.from(payload).toString()
    const { payloads, isRecalled } = revisions
    this.#history.add(`${disk.name} has ${channel} ${messageSeq} ${revision.kind}, version ${revision.version}`)
    if (isRecalled ? revision.version !== payloads.length - 1 || text !== '' : revision.version !== payloads.length) {
      this.#history.broken('P2', `${disk.name} has version ${revision.version} of ${messageSeq} of ${channel} behind ${payloads.length - 1}${isRecalled ? ', which was recalled' : ''}`)
    }
    if (!isRecalled) payloads.push(text)
    revisions.isRecalled = revision.kind === 'recalled'
  }

  /** Whoever has asked for it was told that the message is like this now. */
  revisionTold(disk: Disk, { channelID, channelType, messageSeq, payload, revision }: Message, wanted: string): void {
    const channel = channelName({ channelID, channelType })
    const revisions = this.#revisionsOf(disk, channel, messageSeq)
    const version = revision?.version ?? 0
    const text = Buffer.from(payload).toString()
    if (text !== wanted || revisions?.payloads[version] !== wanted) {
      return this.#history.broken('P1', `a change of ${messageSeq} of ${channel} was confirmed, and is not durable`)
    }
    if (version > revisions.toldVersion) Object.assign(revisions, { toldVersion: version, toldMs: this.#time.nowMs })
  }

  /** @returns what is new */
  appended(disk: Disk, nodeID: number, { key, messages }: AppendBatch, results: readonly AppendResult[]): readonly Kept[] {
    const channel = channelName(key)
    const log = this.#logOf(disk, channel)
    const added: Kept[] = []
    results.forEach(({ status, messageID, messageSeq }, index) => {
      if (status !== 'stored') return
      const message = messages[index]!
      const kept = keptOf(message, messageSeq, nodeID)
      if (messageSeq !== log.length + 1) this.#history.broken('P2', `${disk.name} gave ${channel} the number ${messageSeq} behind ${log.length}`)
      const twin = kept.clientMsgNo === '' ? undefined : log.find((other) => isSameSend(other, kept))
      if (message.noPersist) this.#history.broken('P1', `${disk.name} keeps ${kept.fromUID}'s ${kept.clientMsgNo}, which was to be kept nowhere`)
      if (kept.payload.startsWith(FORBIDDEN)) this.#history.broken('P5', `${disk.name} keeps ${kept.fromUID}'s ${kept.clientMsgNo}, which the host has refused`)
      if (asStored(kept.payload) !== kept.payload) this.#history.broken('P1', `${disk.name} keeps ${kept.fromUID}'s ${kept.clientMsgNo} as it was before the host changed it`)
      if (twin !== undefined) this.#history.broken('P4', `${disk.name} has ${kept.fromUID}'s ${kept.clientMsgNo} in ${channel} at ${twin.messageSeq} and at ${messageSeq}`)
      log.push(kept)
      added.push(kept)
      const name = `${channel}/${messageID}`
      if (!this.#firstMs.has(name)) this.#firstMs.set(name, this.#time.nowMs)
      this.#history.add(`${disk.name} keeps ${channel} ${messageSeq} ${messageID} ${kept.fromUID} ${kept.clientMsgNo}`)
    })
    this.#compare(disk, channel, added)
    return added
  }

  /** What a disk says that it holds is what it was given: after a crash, and at the end. */
  async verify(disk: Disk, store: MessageStore): Promise<void> {
    for (const [channel, log] of this.#channelsOf(disk)) {
      const found = await store.range(keyOfName(channel), { limit: 10_000 })
      log.forEach((kept, index) => {
        const message = found[index]
        if (message === undefined || JSON.stringify(keptOf(message, message.messageSeq, kept.nodeID)) !== JSON.stringify(this.#asItIs(disk, channel, kept))) {
          this.#history.broken(message?.messageSeq === kept.messageSeq ? 'P1' : 'P2', `${disk.name} no longer has ${kept.fromUID}'s ${kept.clientMsgNo} as ${kept.messageSeq} of ${channel}`)
        }
      })
      if (found.length > log.length) this.#history.broken('P2', `${disk.name} has ${found.length} messages in ${channel}, and ${log.length} were stored`)
    }
  }

  #asItIs(disk: Disk, channel: string, kept: Kept): Kept {
    const payload = this.#revisionsOf(disk, channel, kept.messageSeq)?.payloads.at(-1)
    return payload === undefined ? kept : { ...kept, payload }
  }

  #revisionsOf(disk: Disk, channel: string, seq: number): Revisions | undefined {
    return this.#revisions.get(disk)?.get(`${channel}/${seq}`)
  }

  /** P2: nodes of one log give the same numbers. */
  #compare(disk: Disk, channel: string, added: readonly Kept[]): void {
    for (const [other, channels] of this.#disks) {
      if (other === disk) continue
      for (const kept of added) {
        const theirs = channels.get(channel)?.[kept.messageSeq - 1]
        if (theirs !== undefined && theirs.messageID !== kept.messageID) {
          this.#history.broken('P2', `${channel} ${kept.messageSeq} is ${kept.messageID} on ${disk.name} and ${theirs.messageID} on ${other.name}`)
        }
      }
    }
  }

  #logOf(disk: Disk, channel: string): Kept[] {
    const channels = this.#channelsOf(disk)
    let log = channels.get(channel)
    if (log === undefined) channels.set(channel, (log = []))
    return log
  }

  #channelsOf(disk: Disk): Map<string, Kept[]> {
    let channels = this.#disks.get(disk)
    if (channels === undefined) this.#disks.set(disk, (channels = new Map<string, Kept[]>()))
    return channels
  }
}

export function isSameSend(a: Kept, b: { readonly fromUID: string; readonly clientMsgNo: string }): boolean {
  return a.fromUID === b.fromUID && a.clientMsgNo === b.clientMsgNo
}

function keptOf({ messageID, fromUID, clientMsgNo, payload }: Message, messageSeq: number, nodeID: number): Kept {
  return { messageID, messageSeq, fromUID, clientMsgNo, payload: Buffer.from(payload).toString(), nodeID }
}
