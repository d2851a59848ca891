import { ChannelType, personChannelUIDs, type ChannelKey, type Message } from 'imengine'
import { LOBBY, type ChannelRef, type StoredMessage } from './wire.ts'

export interface Conversation {
  /** as the engine knows it: a person channel has one id for both ends */
  readonly key: ChannelKey
  readonly last: Message | undefined
}

/**
 * Who talks with whom, kept by listening to what the engine stores. The engine has the messages; which conversations a user
 * has is a question of the host, and a real one would keep the answer in its database.
 */
export class Conversations {
  readonly #withPeer = new Map<string, Map<string, Conversation>>()
  #lobby: Conversation = { key: { channelID: LOBBY.channelID, channelType: LOBBY.channelType }, last: undefined }

  /** Messages of one channel that were stored, in order. */
  note(key: ChannelKey, messages: readonly Message[]): void {
    const last = messages.at(-1)
    if (key.channelType === LOBBY.channelType && key.channelID === LOBBY.channelID) this.#lobby = { key, last }
    const uids = key.channelType === ChannelType.Person ? personChannelUIDs(key.channelID) : undefined
    if (uids === undefined) return
    const [a, b] = uids
    this.#of(a).set(b, { key, last })
    this.#of(b).set(a, { key, last })
  }

  /** Every conversation `uid` may read, named as `uid` sees it. */
  list(uid: string): [ChannelRef, Conversation][] {
    const withPeers = Array.from(this.#withPeer.get(uid) ?? [], ([peer, conversation]): [ChannelRef, Conversation] => [
      { channelID: peer, channelType: ChannelType.Person },
      conversation,
    ])
    return [[LOBBY, this.#lobby], ...withPeers]
  }

  /**
   * The conversation that `uid` calls `channel`. Everybody is a member of the lobby; a person channel is looked up under
   * the asker's own uid, so there is no way to name one between two others.
   */
  find(uid: string, { channelID, channelType }: ChannelRef): Conversation | undefined {
    if (channelType === LOBBY.channelType) return channelID === LOBBY.channelID ? this.#lobby : undefined
    return channelType === ChannelType.Person ? this.#withPeer.get(uid)?.get(channelID) : undefined
  }

  #of(uid: string): Map<string, Conversation> {
    let peers = this.#withPeer.get(uid)
    if (peers === undefined) this.#withPeer.set(uid, (peers = new Map<string, Conversation>()))
    return peers
  }
}

/** A message as the page's SDK reads it. A payload that is not JSON with a type is of no kind the page knows: type 0. */
export function toStored({ messageID, messageSeq, clientMsgNo, fromUID, timestampMs, payload }: Message): StoredMessage {
  return { messageID, messageSeq, clientMsgNo, fromUID, timestampSec: Math.floor(timestampMs / 1000), content: contentOf(payload) }
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
