import { personChannelID, type AppendBatch, type AppendResult, type ChannelKey, type Message, type MessageStore } from 'imengine'
import type { Disk } from './disk.ts'
import type { History } from './history.ts'
import type { SimTime } from './time.ts'

/** A message that a disk holds. */
export interface Kept {
  readonly messageID: string
  readonly messageSeq: number
  readonly fromUID: string
  readonly clientMsgNo: string
  readonly payload: string
  /** the node that has written it */
  readonly nodeID: number
}

/** How the checks name a channel, whoever looks at it. */
export function channelName({ channelID, channelType }: ChannelKey): string {
  return `${channelType}:${channelID}`
}

/** The same, as one user names it. */
export function channelNameOf(uid: string, { channelID, channelType }: ChannelKey): string {
  return channelName({ channelID: channelType === 1 ? personChannelID(uid, channelID) : channelID, channelType })
}

export function keyOfName(name: string): ChannelKey {
  const at = name.indexOf(':')
  return { channelID: name.slice(at + 1), channelType: Number(name.slice(0, at)) }
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
        if (message === undefined || JSON.stringify(keptOf(message, message.messageSeq, kept.nodeID)) !== JSON.stringify(kept)) {
          this.#history.broken(message?.messageSeq === kept.messageSeq ? 'P1' : 'P2', `${disk.name} no longer has ${kept.fromUID}'s ${kept.clientMsgNo} as ${kept.messageSeq} of ${channel}`)
        }
      })
      if (found.length > log.length) this.#history.broken('P2', `${disk.name} has ${found.length} messages in ${channel}, and ${log.length} were stored`)
    }
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
