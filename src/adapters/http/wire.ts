/** What goes over the wire: the JSON of the reference server's second version, and the answers to questions. */
import { gzipSync } from 'node:zlib'
import type { BeforeSendAnswer, BeforeSendRequest, WebhookEvent } from '../../contracts/webhook.ts'
import { isUint64Decimal } from '../../model/int64.ts'
import type { Message } from '../../model/message.ts'

export type StatusFormat = 'legacy' | 'object'
type StatusEvent = Extract<WebhookEvent, { event: 'user.onlinestatus' }>

/** So many uids are written out; more are compressed. */
const MAX_PLAIN_UIDS = 1_000

/** The body of one POST; all events are of one kind, and an offline event comes alone. */
export function notificationBody(events: readonly WebhookEvent[], statusFormat: StatusFormat): Buffer {
  const first = events[0]!
  if (first.event === 'msg.offline') return Buffer.from(offlineJSON(first.message, first.uids))
  const items = events.flatMap((event) => {
    if (event.event === 'msg.notify') return event.messages.map((message) => messageJSON(message))
    return event.event === 'user.onlinestatus' ? [JSON.stringify(statusOf(event, statusFormat))] : []
  })
  return Buffer.from(`[${items.join(',')}]`)
}

/** @param more  members of the object behind those of the message, as JSON */
function messageJSON(message: Message, more = ''): string {
  const { messageID, revision } = message
  const before = JSON.stringify({
    header: { no_persist: flag(message.noPersist), red_dot: flag(message.redDot), sync_once: flag(message.syncOnce) },
    setting: message.setting,
  })
  const after = JSON.stringify({
    message_idstr: messageID,
    client_msg_no: message.clientMsgNo,
    message_seq: message.messageSeq,
    from_uid: message.fromUID,
    channel_id: message.channelID,
    channel_type: message.channelType,
    topic: message.topic,
    expire: message.expireSec,
    timestamp: Math.floor(message.timestampMs / 1000),
    timestamp_ms: message.timestampMs,
    payload: base64(message.payload),
    ...(revision !== undefined && {
      revision: { kind: revision.kind, version: revision.version, by_uid: revision.byUID, timestamp_ms: revision.timestampMs },
    }),
  })
  // A number of 64 bits, digit by digit: receivers in other languages read it whole, and a JavaScript number would round it.
  const number = isUint64Decimal(messageID) ? messageID : '0'
  return `${before.slice(0, -1)},"message_id":${number},${after.slice(1, -1)}${more}}`
}

function offlineJSON(message: Message, uids: readonly string[]): string {
  if (uids.length <= MAX_PLAIN_UIDS) return messageJSON(message, `,"to_uids":${JSON.stringify(uids)}`)
  const compressed = gzipSync(JSON.stringify(uids)).toString('base64')
  return messageJSON(message, `,"to_uids":[],"compress":"gzip","compress_to_uids":"${compressed}"`)
}

function statusOf({ uid, deviceFlag, online, connectionID, deviceOnlineCount, onlineCount }: StatusEvent, format: StatusFormat): unknown {
  if (format === 'legacy') return [uid, deviceFlag, flag(online), connectionID, deviceOnlineCount, onlineCount].join('-')
  return {
    uid,
    device_flag: deviceFlag,
    online,
    connection_id: connectionID,
    device_online_count: deviceOnlineCount,
    online_count: onlineCount,
  }
}

export function questionBody(request: BeforeSendRequest): Buffer {
  return Buffer.from(
    JSON.stringify({
      from_uid: request.fromUID,
      device_flag: request.deviceFlag,
      channel_id: request.channelID,
      channel_type: request.channelType,
      client_msg_no: request.clientMsgNo,
      payload: base64(request.payload),
    }),
  )
}

/** null counts as absent, as some languages write it. @returns undefined for what is no answer */
export function readAnswer(json: unknown): BeforeSendAnswer | undefined {
  if (!isObject(json)) return undefined
  const { code } = json
  const message = json.message ?? undefined
  const extra = json.extra ?? undefined
  const replacement = json.newPayload ?? json.new_payload ?? undefined
  if (typeof code !== 'number' || !Number.isInteger(code)) return undefined
  if (message !== undefined && typeof message !== 'string') return undefined
  if (extra !== undefined && !isObject(extra)) return undefined
  const newPayload = replacement === undefined ? undefined : bytesOf(replacement)
  if (replacement !== undefined && newPayload === undefined) return undefined
  return {
    code,
    ...(message !== undefined && { message }),
    ...(extra !== undefined && { extra }),
    ...(newPayload !== undefined && { newPayload }),
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function bytesOf(text: unknown): Uint8Array | undefined {
  if (typeof text !== 'string' || !/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return undefined
  return new Uint8Array(Buffer.from(text, 'base64'))
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
}

function flag(value: boolean): 0 | 1 {
  return value ? 1 : 0
}
