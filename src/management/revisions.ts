import type { Clock } from '../contracts/clock.ts'
import type { CursorStore } from '../contracts/cursor-store.ts'
import type { FactSink } from '../contracts/facts.ts'
import type { MessageChange, MessageStore } from '../contracts/message-store.ts'
import { badOption, IMError } from '../errors.ts'
import { channelKeyString, type ChannelKey } from '../model/channel.ts'
import { isRecalled, type Message } from '../model/message.ts'
import type { Notice } from '../model/notice.ts'
import { Turns } from '../model/turns.ts'
import { checkMessageIDs, checkPayload, checkUID } from './check.ts'

export interface ReviseOptions {
  /** who does it, for the history and the event; default '': the host itself */
  readonly byUID?: string
}

export interface RevisionsOptions {
  readonly messages: MessageStore
  readonly cursors: CursorStore
  readonly clock: Clock
  readonly facts: FactSink
  readonly maxPayloadBytes: number
  /**
   * 'alone': there is no other node. 'log': changes go through a log, and every node tells its own connections when it applies them.
   * 'unheard': a change would be known to this node only: not to the stores of the others, or not to those who are connected there
   */
  readonly others: 'alone' | 'log' | 'unheard'
  /** tell the connections of `uids`, or of all members; never rejects */
  readonly tell: (key: ChannelKey, notice: Notice, uids?: readonly string[]) => Promise<void>
}

/** Messages deleted for one user with one call. */
const MAX_DELETED = 1_000

/** Changes of messages that are stored: durable first, then told to those who are online. */
export class Revisions {
  readonly #options: RevisionsOptions
  readonly #turns = new Turns()

  constructor(options: RevisionsOptions) {
    this.#options = options
  }

  async recall(messageID: string, { byUID = '' }: ReviseOptions): Promise<Message> {
    return this.#revise(messageID, { kind: 'recalled', byUID: checkByUID(byUID), timestampMs: this.#options.clock.nowMs() })
  }

  async edit(messageID: string, payload: Uint8Array, { byUID = '' }: ReviseOptions): Promise<Message> {
    const { maxPayloadBytes, clock } = this.#options
    const checked = checkPayload('payload', payload, maxPayloadBytes)
    const change = { kind: 'edited', byUID: checkByUID(byUID), timestampMs: clock.nowMs(), payload: new Uint8Array(checked) } as const
    const message = await this.#revise(messageID, change)
    if (isRecalled(message)) throw notFound(messageID, 'it has been recalled')
    return message
  }

  async deleteFor(uid: string, messageIDs: readonly string[]): Promise<{ readonly deletedCount: number }> {
    const { messages, cursors, others } = this.#options
    checkUID('uid', uid)
    if (checkMessageIDs(messageIDs).length > MAX_DELETED) badOption('messageIDs', `at most ${MAX_DELETED} of them`, messageIDs)
    const byChannel = new Map<string, Message[]>()
    for (const message of await messages.get(messageIDs)) {
      if (message === undefined) continue
      const name = channelKeyString(message)
      const found = byChannel.get(name)
      if (found === undefined) byChannel.set(name, [message])
      else found.push(message)
    }
    let deletedCount = 0
    for (const found of byChannel.values()) {
      const key = keyOf(found[0]!)
      await cursors.hide(uid, key, found.map(({ messageSeq }) => messageSeq))
      deletedCount += found.length
      if (others !== 'log') await this.#tellDeleted(uid, key, found)
    }
    return { deletedCount }
  }

  /** A change has come through the log. @returns what to do when it has been carried out on this node */
  async applying(key: ChannelKey, messageSeq: number, change: MessageChange): Promise<(message: unknown) => void> {
    const [before] = await this.#options.messages.range(key, { startSeq: messageSeq, endSeq: messageSeq })
    return (message) => void (before !== undefined && message !== undefined && this.#tellChanged(key, before, message as Message, change))
  }

  /** A user has deleted these, which has come through the log. */
  async hidden(uid: string, key: ChannelKey, seqs: readonly number[]): Promise<void> {
    const messages: Message[] = []
    for (const seq of seqs) messages.push(...(await this.#options.messages.range(key, { startSeq: seq, endSeq: seq })))
    await this.#tellDeleted(uid, key, messages)
  }

  async #tellDeleted(uid: string, key: ChannelKey, messages: readonly Message[]): Promise<void> {
    const timestampMs = this.#options.clock.nowMs()
    for (const message of messages) await this.#options.tell(key, { type: 'message.deleted', message, timestampMs }, [uid])
  }

  async #tellChanged(key: ChannelKey, before: Message, message: Message, change: MessageChange): Promise<void> {
    // Recalled before: everybody has been told.
    if (message.revision?.kind !== change.kind || isRecalled(before)) return
    this.#options.facts.emit('messageRevised', { key, message })
    await this.#options.tell(key, { type: change.kind === 'edited' ? 'message.edited' : 'message.recalled', message, timestampMs: change.timestampMs })
  }

  /** Changes of one message one after the other, so that each knows what was before it. */
  #revise(messageID: string, change: MessageChange): Promise<Message> {
    return this.#turns.take(messageID, () => this.#change(messageID, change))
  }

  async #change(messageID: string, change: MessageChange): Promise<Message> {
    const { messages, others } = this.#options
    checkMessageIDs([messageID])
    if (others === 'unheard') throw new IMError('IM_NOT_SUPPORTED', { detail: 'a message cannot be changed with other nodes that share no log' })
    const [before] = await messages.get([messageID])
    if (before === undefined) throw notFound(messageID)
    const key = keyOf(before)
    const message = await messages.revise(key, before.messageSeq, change)
    if (message === undefined) throw notFound(messageID)
    if (others === 'alone') await this.#tellChanged(key, before, message, change)
    return message
  }
}

function keyOf({ channelID, channelType }: Message): ChannelKey {
  return { channelID, channelType }
}

function notFound(messageID: string, detail = `messageID ${messageID}`): IMError {
  return new IMError('IM_MESSAGE_NOT_FOUND', { detail })
}

function checkByUID(byUID: string): string {
  return byUID === '' ? '' : checkUID('byUID', byUID)
}
