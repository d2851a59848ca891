/**
 * A push as bytes, by `ByteWriter`; n is a variable number, text and bytes follow their length:
 *
 *   n channelType · text channelID · n count · uids · n count · messages
 *   message: u8 flags · u8 setting · u64 messageID · n messageSeq · double timestampMs · n expireSec · text fromUID ·
 *   text clientMsgNo · [text topic] · [n channelType · text channelID] · [revision] · bytes payload
 *   revision: u8 kind · n version · double timestampMs · text byUID
 *
 * A message whose channel is that of the push, as all are, does not repeat it. What changes here changes `VERSION` in `frames.ts`.
 */
import type { PeerPushRequest } from '../../contracts/peer-push.ts'
import { badOption } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { decimalFromHalves, writeUint64Decimal } from '../../model/int64.ts'
import type { Message, Revision } from '../../model/message.ts'
import { flagFields, MessageFlag, messageFlags, REVISION_KINDS } from '../../model/message-flags.ts'
import { ByteReader, ByteWriter, readable, UnreadableBytes } from './bytes.ts'

/** beside the flags of the message itself */
const OTHER_CHANNEL = 32

const ALL_FLAGS = 63

/** @throws TypeError for what is no message */
export function encodePush({ key, messages, uids }: PeerPushRequest): Buffer {
  const payloadBytes = messages.reduce((sum, { payload }) => sum + payload.length, 0)
  const writer = new ByteWriter(256 + payloadBytes + 128 * messages.length + 16 * uids.length)
  writer.number(key.channelType)
  writer.text(key.channelID)
  writer.number(uids.length)
  for (const uid of uids) writer.text(uid)
  writer.number(messages.length)
  for (const message of messages) writeMessage(writer, message, key)
  return writer.end()
}

/** Undefined when the bytes are no push. The request keeps nothing of `bytes`. */
export function decodePush(bytes: Buffer): PeerPushRequest | undefined {
  return readable(() => {
    const reader = new ByteReader(bytes)
    const channelType = reader.number()
    const key = { channelID: reader.text(), channelType }
    const uids = Array.from({ length: reader.count() }, () => reader.text())
    const messages = Array.from({ length: reader.count() }, () => readMessage(reader, key))
    if (!reader.isAtEnd) throw new UnreadableBytes('something follows')
    return { key, messages, uids }
  })
}

function writeMessage(writer: ByteWriter, message: Message, key: ChannelKey): void {
  const { topic, revision } = message
  const isElsewhere = message.channelID !== key.channelID || message.channelType !== key.channelType
  writer.byte(messageFlags(message) | (isElsewhere ? OTHER_CHANNEL : 0))
  writer.byte(message.setting)
  const id = new Uint8Array(8)
  if (!writeUint64Decimal(id, 0, message.messageID)) badOption('messageID', 'an unsigned 64-bit decimal', message.messageID)
  writer.raw(id)
  writer.number(message.messageSeq)
  writer.double(message.timestampMs)
  writer.number(message.expireSec)
  writer.text(message.fromUID)
  writer.text(message.clientMsgNo)
  if (topic !== '') writer.text(topic)
  if (isElsewhere) {
    writer.number(message.channelType)
    writer.text(message.channelID)
  }
  if (revision !== undefined) {
    writer.byte(REVISION_KINDS.indexOf(revision.kind))
    writer.number(revision.version)
    writer.double(revision.timestampMs)
    writer.text(revision.byUID)
  }
  writer.bytes(message.payload)
}

function readMessage(reader: ByteReader, key: ChannelKey): Message {
  const flags = reader.byte()
  if (flags > ALL_FLAGS) throw new UnreadableBytes('flags of another version')
  const setting = reader.byte()
  const id = reader.raw(8)
  const head = {
    messageID: decimalFromHalves(id.readUInt32BE(0), id.readUInt32BE(4)),
    messageSeq: reader.number(),
    timestampMs: reader.double(),
    expireSec: reader.number(),
    fromUID: reader.text(),
    clientMsgNo: reader.text(),
    topic: (flags & MessageFlag.Topic) === 0 ? '' : reader.text(),
  }
  const channelType = (flags & OTHER_CHANNEL) === 0 ? key.channelType : reader.number()
  const channelID = (flags & OTHER_CHANNEL) === 0 ? key.channelID : reader.text()
  const revision = (flags & MessageFlag.Revised) === 0 ? undefined : readRevision(reader)
  return {
    ...head,
    channelID,
    channelType,
    setting,
    ...flagFields(flags),
    ...(revision === undefined ? {} : { revision }),
    // A copy: a receiver keeps messages, and must not keep what else has come with them.
    payload: Buffer.from(reader.bytes()),
  }
}

function readRevision(reader: ByteReader): Revision {
  const kind = REVISION_KINDS[reader.byte()]
  if (kind === undefined) throw new UnreadableBytes('a revision of an unknown kind')
  return { kind, version: reader.number(), timestampMs: reader.double(), byUID: reader.text() }
}
