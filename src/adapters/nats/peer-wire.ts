/**
 * What nodes say to each other, as bytes: a version, a kind, the fields. Strings are UTF-8 behind their length, counts and
 * lengths are LEB128, times are 64-bit floats. A node that meets a version it does not know answers so and does nothing.
 */
import type { PeerKickRequest, PeerPushRequest } from '../../contracts/peer-push.ts'
import type { Message, Revision } from '../../model/message.ts'
import { flagFields, MessageFlag, messageFlags, REVISION_KINDS } from '../../model/message-flags.ts'

const WIRE_VERSION = 1

export const Kind = { Push: 1, Kick: 2, Hello: 3, Alive: 4, Bye: 5, LateKick: 6 } as const

/** What a node answers to a push or a kick. */
export const Answer = { Taken: 0, Failed: 1, Unreadable: 2, Busy: 3 } as const

/** Who speaks: a node, and which of its lives. */
export interface Speaker {
  readonly nodeID: number
  readonly boot: string
}

export type PeerFrame =
  | { readonly kind: typeof Kind.Push; readonly fromNodeID: number; readonly request: PeerPushRequest }
  | { readonly kind: typeof Kind.Kick; readonly fromNodeID: number; readonly request: PeerKickRequest }
  | { readonly kind: typeof Kind.Hello | typeof Kind.Bye; readonly speaker: Speaker }
  /** `knownNodeIDs`: those that the speaker knows besides itself */
  | { readonly kind: typeof Kind.Alive; readonly speaker: Speaker; readonly knownNodeIDs: readonly number[] }

/** beside the flags of the message itself */
const OTHER_CHANNEL = 32

/**
 * One push, as several where it would be larger than `maxBytes`: first all messages for the first users, then for the next, so
 * that each user gets them in order.
 * @throws RangeError  one message or one uid does not fit
 */
export function encodePush(fromNodeID: number, request: PeerPushRequest, maxBytes: number): Uint8Array[] {
  const head = new Writer(64)
  head.u8(WIRE_VERSION)
  head.u8(Kind.Push)
  head.count(fromNodeID)
  head.text(request.key.channelID)
  head.count(request.key.channelType)
  const uids = pieces(request.uids, (writer, uid) => writer.text(uid))
  const messages = pieces(request.messages, (writer, message) => writeMessage(writer, message, request))
  const room = maxBytes - head.length - 2 * MAX_COUNT_BYTES
  const uidBytes = uids.reduce((sum, { length }) => sum + length, 0)
  const parts: Uint8Array[] = []
  // Where the users alone are many, they leave half of the room to the messages.
  for (const someUIDs of inRoom(uids, Math.max(uidBytes <= room / 2 ? uidBytes : room / 2, 0))) {
    const taken = someUIDs.reduce((sum, { length }) => sum + length, 0)
    for (const someMessages of inRoom(messages, room - taken)) {
      parts.push(Buffer.concat([head.bytes(), countBytes(someUIDs.length), ...someUIDs, countBytes(someMessages.length), ...someMessages]))
    }
  }
  return parts
}

export function encodeKick(fromNodeID: number, { uid, deviceFlag, deviceID, deviceLevel, out, agoMs }: PeerKickRequest): Uint8Array {
  const writer = new Writer(128)
  writer.u8(WIRE_VERSION)
  writer.u8(agoMs === undefined ? Kind.Kick : Kind.LateKick) // a node that does not know late ones must not take it for one of now
  writer.count(fromNodeID)
  writer.text(uid)
  writer.count(deviceFlag)
  writer.text(deviceID)
  writer.count(deviceLevel)
  writer.u8(out === undefined ? 0 : out.allDevices ? 2 : 1)
  if (out !== undefined) writer.text(out.reason)
  if (agoMs !== undefined) writer.float(agoMs)
  return writer.bytes()
}

export function encodeSpeaker(kind: typeof Kind.Hello | typeof Kind.Alive | typeof Kind.Bye, { nodeID, boot }: Speaker, knownNodeIDs: readonly number[] = []): Uint8Array {
  const writer = new Writer(64)
  writer.u8(WIRE_VERSION)
  writer.u8(kind)
  writer.count(nodeID)
  writer.text(boot)
  if (kind === Kind.Alive) {
    writer.count(knownNodeIDs.length)
    for (const known of knownNodeIDs) writer.count(known)
  }
  return writer.bytes()
}

export function encodeAnswer(answer: (typeof Answer)[keyof typeof Answer]): Uint8Array {
  return Uint8Array.of(WIRE_VERSION, answer)
}

/** @returns 'taken', or in words why not */
export function decodeAnswer(bytes: Uint8Array): string {
  if (bytes.length !== 2 || bytes[0] !== WIRE_VERSION) return 'it answers in another version'
  switch (bytes[1]) {
    case Answer.Taken:
      return 'taken'
    case Answer.Unreadable:
      return 'it could not read the call'
    case Answer.Busy:
      return 'too much waits there'
    default:
      return 'it failed'
  }
}

/** @throws RangeError  these bytes are no frame, or one of another version */
export function decodePeerFrame(bytes: Uint8Array): PeerFrame {
  const reader = new Reader(bytes)
  if (reader.u8() !== WIRE_VERSION) throw new RangeError('another version')
  const kind = reader.u8()
  const nodeID = reader.count()
  const frame = readBody(reader, kind, nodeID)
  reader.end()
  return frame
}

function readBody(reader: Reader, kind: number, nodeID: number): PeerFrame {
  switch (kind) {
    case Kind.Push: {
      const key = { channelID: reader.text(), channelType: reader.count() }
      const uids = reader.list(() => reader.text())
      const messages = reader.list(() => readMessage(reader, key))
      return { kind, fromNodeID: nodeID, request: { key, messages, uids } }
    }
    case Kind.Kick:
    case Kind.LateKick: {
      const login = { uid: reader.text(), deviceFlag: reader.count(), deviceID: reader.text(), deviceLevel: reader.count() }
      const sentAway = reader.u8()
      const request = sentAway === 0 ? { ...login, nodeID } : { ...login, out: { allDevices: sentAway === 2, reason: reader.text() } }
      return { kind: Kind.Kick, fromNodeID: nodeID, request: kind === Kind.Kick ? request : { ...request, agoMs: reader.float() } }
    }
    case Kind.Hello:
    case Kind.Bye:
      return { kind, speaker: { nodeID, boot: reader.text() } }
    case Kind.Alive:
      return { kind, speaker: { nodeID, boot: reader.text() }, knownNodeIDs: reader.list(() => reader.count()) }
    default:
      throw new RangeError('another kind')
  }
}

function writeMessage(writer: Writer, message: Message, { key }: PeerPushRequest): void {
  const { revision, topic } = message
  const isElsewhere = message.channelID !== key.channelID || message.channelType !== key.channelType
  writer.u8(messageFlags(message) | (isElsewhere ? OTHER_CHANNEL : 0))
  if (isElsewhere) {
    writer.text(message.channelID)
    writer.count(message.channelType)
  }
  writer.text(message.messageID)
  writer.count(message.messageSeq)
  writer.text(message.clientMsgNo)
  writer.text(message.fromUID)
  writer.float(message.timestampMs)
  writer.count(message.expireSec)
  if (topic !== '') writer.text(topic)
  writer.u8(message.setting)
  writer.blob(message.payload)
  if (revision === undefined) return
  writer.u8(REVISION_KINDS.indexOf(revision.kind))
  writer.count(revision.version)
  writer.text(revision.byUID)
  writer.float(revision.timestampMs)
}

function readMessage(reader: Reader, key: { readonly channelID: string; readonly channelType: number }): Message {
  const flags = reader.u8()
  const isElsewhere = (flags & OTHER_CHANNEL) !== 0
  return {
    channelID: isElsewhere ? reader.text() : key.channelID,
    channelType: isElsewhere ? reader.count() : key.channelType,
    messageID: reader.text(),
    messageSeq: reader.count(),
    clientMsgNo: reader.text(),
    fromUID: reader.text(),
    timestampMs: reader.float(),
    expireSec: reader.count(),
    topic: (flags & MessageFlag.Topic) === 0 ? '' : reader.text(),
    setting: reader.u8(),
    payload: reader.blob(),
    ...flagFields(flags),
    ...((flags & MessageFlag.Revised) === 0 ? {} : { revision: readRevision(reader) }),
  }
}

function readRevision(reader: Reader): Revision {
  const kind = REVISION_KINDS[reader.u8()]
  if (kind === undefined) throw new RangeError('another kind of revision')
  return { kind, version: reader.count(), byUID: reader.text(), timestampMs: reader.float() }
}

/** 53 bits in groups of seven */
const MAX_COUNT_BYTES = 8

class Writer {
  #buffer: Buffer
  length = 0

  constructor(sizeBytes: number) {
    this.#buffer = Buffer.allocUnsafe(sizeBytes)
  }

  u8(value: number): void {
    this.#reserve(1)
    this.#buffer[this.length++] = value
  }

  /** @throws RangeError  not a count: what a store has numbered wrongly must not arrive as another number */
  count(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError('not a count')
    this.#reserve(MAX_COUNT_BYTES)
    let rest = value
    for (; rest > 0x7f; rest = Math.floor(rest / 0x80)) this.#buffer[this.length++] = (rest % 0x80) | 0x80
    this.#buffer[this.length++] = rest
  }

  float(value: number): void {
    this.#reserve(8)
    this.length = this.#buffer.writeDoubleBE(value, this.length)
  }

  text(value: string): void {
    const byteCount = Buffer.byteLength(value)
    this.count(byteCount)
    this.#reserve(byteCount)
    this.length += this.#buffer.write(value, this.length)
  }

  blob(value: Uint8Array): void {
    this.count(value.length)
    this.#reserve(value.length)
    this.#buffer.set(value, this.length)
    this.length += value.length
  }

  bytes(): Buffer {
    return this.#buffer.subarray(0, this.length)
  }

  #reserve(byteCount: number): void {
    const needed = this.length + byteCount
    if (needed <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#buffer.length))
    larger.set(this.bytes())
    this.#buffer = larger
  }
}

/** Every read checks that the bytes are there, so that no length in them can cost more than they do. */
class Reader {
  readonly #buffer: Buffer
  #offset = 0

  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  u8(): number {
    return this.#buffer[this.#take(1)]!
  }

  count(): number {
    let value = 0
    for (let i = 0, scale = 1; i < MAX_COUNT_BYTES; i++, scale *= 0x80) {
      const byte = this.u8()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break
        return value
      }
    }
    throw new RangeError('not a count')
  }

  float(): number {
    const value = this.#buffer.readDoubleBE(this.#take(8))
    if (!Number.isFinite(value)) throw new RangeError('not a time')
    return value
  }

  text(): string {
    const byteCount = this.count()
    const start = this.#take(byteCount)
    return this.#buffer.toString('utf8', start, start + byteCount)
  }

  blob(): Uint8Array {
    const byteCount = this.count()
    const start = this.#take(byteCount)
    return this.#buffer.subarray(start, start + byteCount)
  }

  list<T>(item: () => T): T[] {
    const count = this.count()
    const items: T[] = []
    for (let i = 0; i < count; i++) items.push(item()) // every item is a byte at least: a count that lies ends at the end
    return items
  }

  end(): void {
    if (this.#offset !== this.#buffer.length) throw new RangeError('bytes behind the end')
  }

  #take(byteCount: number): number {
    const start = this.#offset
    if (byteCount > this.#buffer.length - start) throw new RangeError('cut short')
    this.#offset = start + byteCount
    return start
  }
}

function countBytes(count: number): Uint8Array {
  const writer = new Writer(MAX_COUNT_BYTES)
  writer.count(count)
  return writer.bytes()
}

/** Each item as bytes of its own. */
function pieces<T>(items: readonly T[], write: (writer: Writer, item: T) => void): Uint8Array[] {
  const writer = new Writer(1_024)
  const ends: number[] = []
  for (const item of items) {
    write(writer, item)
    ends.push(writer.length)
  }
  const whole = writer.bytes()
  return ends.map((end, i) => whole.subarray(ends[i - 1] ?? 0, end))
}

/** Runs of pieces that fit; at least one run, also of nothing. @throws RangeError  a piece alone does not */
function inRoom(all: readonly Uint8Array[], room: number): Uint8Array[][] {
  const runs: Uint8Array[][] = [[]]
  let left = room
  for (const piece of all) {
    if (piece.length > room) throw new RangeError('one piece is larger than what the servers take at once')
    if (piece.length > left) {
      runs.push([])
      left = room
    }
    runs.at(-1)!.push(piece)
    left -= piece.length
  }
  return runs
}
