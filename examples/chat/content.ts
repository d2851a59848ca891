import type { Message } from 'imengine'
import type { StoredMessage } from './wire.ts'

/** A message as the page's SDK reads it. A payload that is not JSON with a type is of no kind the page knows: type 0. */
export function toStored({ messageID, messageSeq, clientMsgNo, fromUID, timestampMs, payload, revision }: Message): StoredMessage {
  const changes = { version: revision?.version ?? 0, recalled: revision?.kind === 'recalled' }
  return { messageID, messageSeq, clientMsgNo, fromUID, timestampSec: Math.floor(timestampMs / 1000), content: contentOf(payload), ...changes }
}

/** What a payload says, as the client SDKs write it. */
export function contentOf(payload: Uint8Array): StoredMessage['content'] {
  try {
    const content: unknown = JSON.parse(Buffer.from(payload).toString())
    if (typeof content === 'object' && content !== null && 'type' in content && typeof content.type === 'number') return { ...content, type: content.type }
  } catch {
    // Not JSON: the engine carries any bytes, this page does not.
  }
  return { type: 0 }
}
