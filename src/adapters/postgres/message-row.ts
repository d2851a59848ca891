import { badOption } from '../../errors.ts'
import type { ChannelKey } from '../../model/channel.ts'
import { isUint64Decimal } from '../../model/int64.ts'
import type { Message, Revision } from '../../model/message.ts'
import { flagFields, MessageFlag, messageFlags, REVISION_KINDS } from '../../model/message-flags.ts'
import type { Texts } from './texts.ts'

/** Those of the flags that columns do not tell. */
const KEPT_FLAGS = MessageFlag.NoPersist | MessageFlag.RedDot | MessageFlag.SyncOnce

/** Times are exact as a JavaScript number. */
const MAX_TIME_MS = Number.MAX_SAFE_INTEGER - 0xffff_ffff * 1000

const MAX_SIGNED = '9223372036854775807'

export const MESSAGE_COLUMNS = 'm.seq, m.message_id, m.sent_ms, m.expires_ms, m.bits, m.from_key, m.client_msg_no, m.topic, m.payload, m.revision_kind, m.revision_version, m.revised_by, m.revised_ms'

/** As the driver hands it over: 64-bit numbers as decimals. */
export interface MessageRow {
  readonly seq: string
  readonly message_id: string
  readonly sent_ms: string
  readonly expires_ms: string | null
  readonly bits: number
  readonly from_key: Buffer
  readonly client_msg_no: Buffer
  readonly topic: Buffer
  readonly payload: Buffer
  readonly revision_kind: number | null
  readonly revision_version: number | null
  readonly revised_by: Buffer | null
  readonly revised_ms: string | null
}

export function kindNumber(kind: Revision['kind']): number {
  const number = REVISION_KINDS.indexOf(kind)
  return number >= 0 ? number : badOption('change.kind', "'recalled' or 'edited'", kind)
}

/** Rows as the messages they stand for; `keys` are their channels. */
export async function messagesOf(rows: readonly MessageRow[], keys: (index: number) => ChannelKey, texts: Texts): Promise<Message[]> {
  const senders = await texts.textsOf(rows.map(({ from_key }) => from_key))
  return rows.map((row, index) => messageOf(row, keys(index), senders[index]!))
}

function messageOf(row: MessageRow, { channelID, channelType }: ChannelKey, fromUID: string): Message {
  const timestampMs = Number(row.sent_ms)
  const message: Message = {
    messageID: unsignedOf(row.message_id),
    messageSeq: Number(row.seq),
    clientMsgNo: row.client_msg_no.toString(),
    fromUID,
    channelID,
    channelType,
    payload: row.payload,
    timestampMs,
    expireSec: row.expires_ms === null ? 0 : (Number(row.expires_ms) - timestampMs) / 1000,
    topic: row.topic.toString(),
    setting: row.bits & 0xff,
    ...flagFields(row.bits >>> 8),
  }
  const kind = REVISION_KINDS[row.revision_kind ?? -1]
  if (kind === undefined) return message
  const revision: Revision = { kind, version: row.revision_version!, byUID: row.revised_by!.toString(), timestampMs: Number(row.revised_ms) }
  return { ...message, revision }
}

/** The flags and the setting of a message in one number. */
export function bitsOf(message: Message): number {
  return message.setting | ((messageFlags(message) & KEPT_FLAGS) << 8)
}

export function timeOf(option: string, timestampMs: number): number {
  if (!(timestampMs >= 0 && timestampMs <= MAX_TIME_MS)) badOption(option, `from 0 to ${MAX_TIME_MS}`, timestampMs)
  return Math.trunc(timestampMs)
}

/** An unsigned 64-bit decimal as the signed one of the same bits, which is what bigint holds. @throws TypeError */
export function signedOf(messageID: string): string {
  if (!isUint64Decimal(messageID)) badOption('messageID', 'an unsigned 64-bit decimal', messageID)
  if (messageID.length < MAX_SIGNED.length || (messageID.length === MAX_SIGNED.length && messageID <= MAX_SIGNED)) return messageID
  return BigInt.asIntN(64, BigInt(messageID)).toString()
}

export function unsignedOf(bigint: string): string {
  return bigint.startsWith('-') ? BigInt.asUintN(64, BigInt(bigint)).toString() : bigint
}
