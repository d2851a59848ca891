import { createHash } from 'node:crypto'
import type { AppendBatch, AppendResult } from '../../contracts/message-store.ts'
import { badOption } from '../../errors.ts'
import { channelKeyString, ChannelType, personChannelUIDs, sourceKey, type ChannelKey } from '../../model/channel.ts'
import type { Message } from '../../model/message.ts'
import { bitsOf, signedOf, timeOf } from './message-row.ts'
import { isLong, textKey } from './texts.ts'

/** Memory of a message besides its bytes. */
const ENTRY_BYTES = 300

/** A message on its way to the server. */
export interface Entry {
  readonly messageID: string
  /** as bigint has it */
  readonly signedID: string
  readonly sentMs: number
  readonly expiresMs: number | null
  /** what recognises repeats in its channel, as 32 hexadecimal digits; null when nothing does */
  readonly repeatKey: string | null
  readonly bits: number
  /** lengths of what stands for it in the call's content, one behind the other */
  readonly fromBytes: number
  readonly noBytes: number
  readonly topicBytes: number
  readonly payloadBytes: number
  /** where that begins */
  readonly start: number
}

/** The messages of one call for one channel, as they were when the call was made. */
export interface Part {
  readonly name: string
  readonly key: ChannelKey
  readonly entries: readonly Entry[]
  /** whose person channel it is */
  readonly uids: readonly string[]
  /** the id under which it is listed for them */
  readonly listedID: string
}

/** One call of `append`, with a copy of all it was given. */
export class AppendCall {
  readonly parts: readonly Part[]
  readonly content: Buffer
  readonly count: number
  /** senders whose keys are not their texts */
  readonly longUIDs: readonly string[]
  readonly resolve: (results: AppendResult[][]) => void
  readonly reject: (error: unknown) => void

  /** @throws TypeError for a message that cannot be stored */
  constructor(batches: readonly AppendBatch[], resolve: (results: AppendResult[][]) => void, reject: (error: unknown) => void) {
    this.resolve = resolve
    this.reject = reject
    const pieces: Uint8Array[] = []
    const longUIDs = new Set<string>()
    let start = 0
    let count = 0
    const entryOf = (message: Message): Entry => {
      const { messageID, fromUID, clientMsgNo, topic, payload, expireSec } = message
      if (!(payload instanceof Uint8Array)) badOption('message payload', 'a Uint8Array', payload)
      const from = textKey(fromUID)
      if (isLong(from)) longUIDs.add(fromUID)
      const no = Buffer.from(clientMsgNo)
      const topicText = Buffer.from(topic)
      const sentMs = timeOf('timestampMs', message.timestampMs)
      const entry: Entry = {
        messageID,
        signedID: signedOf(messageID),
        sentMs,
        expiresMs: expireSec === 0 ? null : sentMs + expireSec * 1000,
        repeatKey: clientMsgNo === '' ? null : repeatKeyOf(from, no),
        bits: bitsOf(message),
        fromBytes: from.length,
        noBytes: no.length,
        topicBytes: topicText.length,
        payloadBytes: payload.length,
        start,
      }
      pieces.push(from, no, topicText, payload)
      start += from.length + no.length + topicText.length + payload.length
      count++
      return entry
    }
    this.parts = batches.map(({ key, messages }) => {
      const { channelID, channelType } = key
      const listedID = channelType === ChannelType.Person ? sourceKey(key).channelID : ''
      const uids = new Set(channelType === ChannelType.Person ? personChannelUIDs(listedID) : [])
      return { name: channelKeyString(key), key: { channelID, channelType }, entries: messages.map(entryOf), uids: [...uids], listedID }
    })
    this.content = Buffer.concat(pieces) // copies: the caller may do what it likes with its arrays
    this.count = count
    this.longUIDs = [...longUIDs]
  }

  get bytes(): number {
    return this.content.length + ENTRY_BYTES * this.count
  }

  payloadOf({ start, fromBytes, noBytes, topicBytes, payloadBytes }: Entry): Buffer {
    const from = start + fromBytes + noBytes + topicBytes
    return this.content.subarray(from, from + payloadBytes)
  }
}

/** 128 bits of SHA-256 over sender and number: whoever found two alike could only be taken to repeat themselves. */
export function repeatKeyOf(from: Buffer, clientMsgNo: Buffer): string {
  const length = Buffer.allocUnsafe(4)
  length.writeUInt32BE(from.length)
  return createHash('sha256').update(length).update(from).update(clientMsgNo).digest('hex').slice(0, 32)
}
