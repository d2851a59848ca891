import type { WebhookEvent } from '../contracts/webhook.ts'
import type { Message } from '../model/message.ts'

/** What one entry of the outbox stands for: content by id, so that what waits holds no payloads. */
export type WebhookEntry =
  /** messages of one channel (`channelKeyString`) in the order of their numbers, some of which may never have been stored */
  | { readonly kind: 'notify'; readonly channel: string; readonly messageIDs: readonly string[] }
  /** `message` is there when no store has it */
  | { readonly kind: 'offline'; readonly channel: string; readonly messageID: string; readonly message: Message | undefined; readonly uids: readonly string[] }
  | { readonly kind: 'status'; readonly event: Extract<WebhookEvent, { event: 'user.onlinestatus' }> }

export const EVENT_OF_KIND = { notify: 'msg.notify', offline: 'msg.offline', status: 'user.onlinestatus' } as const

/** JSON of an array whose first element says which kind it is; payloads in base64. */
export function encodeEntry(entry: WebhookEntry): Uint8Array {
  return Buffer.from(JSON.stringify(arrayOf(entry)))
}

function arrayOf(entry: WebhookEntry): unknown[] {
  switch (entry.kind) {
    case 'notify':
      return ['notify', entry.channel, entry.messageIDs]
    case 'offline': {
      const { message } = entry
      const inline = message && { ...message, payload: Buffer.from(message.payload).toString('base64') }
      return ['offline', entry.channel, entry.messageID, entry.uids, ...(inline === undefined ? [] : [inline])]
    }
    case 'status': {
      const { uid, deviceFlag, online, connectionID, deviceOnlineCount, onlineCount } = entry.event
      return ['status', uid, deviceFlag, online, connectionID, deviceOnlineCount, onlineCount]
    }
  }
}

/** @returns undefined for bytes that are not an entry */
export function decodeEntry(bytes: Uint8Array): WebhookEntry | undefined {
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString())
  } catch {
    return undefined
  }
  if (!Array.isArray(parts)) return undefined
  const [kind, ...rest] = parts as unknown[]
  if (kind === 'notify') {
    const [channel, messageIDs] = rest
    return typeof channel === 'string' && isTexts(messageIDs) ? { kind, channel, messageIDs } : undefined
  }
  if (kind === 'offline') {
    const [channel, messageID, uids, inline] = rest
    if (typeof channel !== 'string' || typeof messageID !== 'string' || !isTexts(uids)) return undefined
    const message = inline === undefined ? undefined : messageOf(inline)
    return inline !== undefined && message === undefined ? undefined : { kind, channel, messageID, uids, message }
  }
  if (kind !== 'status') return undefined
  const [uid, deviceFlag, online, connectionID, deviceOnlineCount, onlineCount] = rest
  if (typeof uid !== 'string' || typeof connectionID !== 'string' || typeof online !== 'boolean') return undefined
  const counts = [deviceFlag, deviceOnlineCount, onlineCount]
  if (!counts.every((count) => typeof count === 'number')) return undefined
  const [flag, deviceCount, count] = counts as [number, number, number]
  return {
    kind,
    event: { event: 'user.onlinestatus', uid, deviceFlag: flag, online, connectionID, deviceOnlineCount: deviceCount, onlineCount: count },
  }
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

function messageOf(inline: unknown): Message | undefined {
  const message = inline as (Omit<Message, 'payload'> & { readonly payload: unknown }) | null
  if (typeof message?.payload !== 'string') return undefined
  return { ...message, payload: new Uint8Array(Buffer.from(message.payload, 'base64')) }
}

/** How much of a call an entry takes up. */
export function sizeOf(entry: WebhookEntry): number {
  return entry.kind === 'notify' ? entry.messageIDs.length : 1
}
