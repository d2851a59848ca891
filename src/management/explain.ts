import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { asIMError, type IMErrorCode } from '../errors.ts'
import { channelInfo, channelKeyString, ChannelType, personChannelUIDs, sourceKey, type ChannelInfo, type ChannelKey } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'
import { checkKey } from './check.ts'

/** What one node knows of a channel, for whoever has to find out why something did not arrive. */
export interface ChannelExplanation {
  readonly key: ChannelKey
  /** somebody has created it; a person channel needs nobody to. Undefined when that could not be found out, as everything below */
  readonly exists: boolean | undefined
  /** what it may, every flag named; those of a channel that nobody has created are all false */
  readonly info: Required<ChannelInfo> | undefined
  readonly denyListIsEmpty: boolean | undefined
  /** an empty allow list allows everyone */
  readonly allowListIsEmpty: boolean | undefined
  /** the highest number ever given, and the one up to which everything has been removed */
  readonly lastSeq: number | undefined
  readonly floorSeq: number | undefined
  /** of the message with the highest number, in milliseconds since 1970 */
  readonly lastTimestampMs: number | undefined
  readonly members: {
    /** counted up to `maxMembersPerCall`: then `isComplete` is false */
    readonly count: number
    readonly isComplete: boolean
    /** members who may not send at this moment */
    readonly mutedCount: number
    /** members who are connected to this node: how many, and the first hundred of them */
    readonly onlineHereCount: number
    readonly onlineHere: readonly string[]
  } | undefined
  /** messages that wait to be stored, to be handed to the members, and pushes under way, on this node */
  readonly waiting: { readonly channel: number; readonly handOver: number; readonly pusher: number }
  /** answers kept in front of the store, by which repeats are recognised */
  readonly recentCount: number
  /** which log its messages go through; undefined without one, and with one that does not say */
  readonly log: string | undefined
  /** what could not be found out in time */
  readonly failed: readonly { readonly ask: ExplainAsk; readonly code: IMErrorCode }[]
}

export type ExplainAsk = 'channel' | 'lists' | 'summary' | 'members'

export interface ExplainOptions {
  readonly directory: ChannelDirectory
  readonly messages: Pick<MessageStore, 'summaries'>
  readonly nowMs: () => number
  readonly maxMembersPerCall: number
  readonly isOnlineHere: (uid: string) => boolean
  readonly waiting: (channel: string) => ChannelExplanation['waiting']
  readonly recentCount: (channel: string) => number
  readonly logOf: ((key: ChannelKey) => string) | undefined
  /** ask an adapter, but not for ever */
  readonly limited: <T>(ask: () => MaybePromise<T>) => Promise<T>
}

const MAX_ONLINE = 100
const PAGE_COUNT = 1_000
/** No user has it, so that a summary says nothing of anybody. */
const NOBODY = ''

/** `engine.explain`. Every question has the time of a step, and what is not answered in time is named instead of waited for. */
export class Explain {
  readonly #options: ExplainOptions

  constructor(options: ExplainOptions) {
    this.#options = options
  }

  async of(channel: ChannelKey): Promise<ChannelExplanation> {
    const key = checkKey(channel)
    const source = sourceKey(key) // members, lists and flags of a command channel hang on this one
    const name = channelKeyString(key)
    const { directory, messages, waiting, recentCount, logOf } = this.#options
    const failed: { ask: ExplainAsk; code: IMErrorCode }[] = []
    const ask = async <T>(what: ExplainAsk, question: () => Promise<T>): Promise<T | undefined> => {
      try {
        return await question()
      } catch (reason) {
        failed.push({ ask: what, code: asIMError(reason, what === 'summary' ? 'IM_STORE_UNAVAILABLE' : 'IM_DIRECTORY_UNAVAILABLE', {}).code })
        return undefined
      }
    }
    const { limited } = this.#options
    const [found, lists, summary, members] = await Promise.all([
      ask('channel', async () => ({ info: await limited(() => directory.channel(source)) })),
      ask('lists', async () => ({
        deny: await limited(() => directory.isListEmpty(source, 'deny')),
        allow: await limited(() => directory.isListEmpty(source, 'allow')),
      })),
      ask('summary', async () => (await limited(() => messages.summaries(NOBODY, [key])))[0]),
      ask('members', () => this.#members(source)),
    ])
    return Object.freeze({
      key,
      exists: found && (found.info !== undefined || source.channelType === ChannelType.Person),
      info: found && channelInfo(source, found.info),
      denyListIsEmpty: lists?.deny,
      allowListIsEmpty: lists?.allow,
      lastSeq: summary?.lastSeq,
      floorSeq: summary?.floorSeq,
      lastTimestampMs: summary?.lastTimestampMs,
      members,
      waiting: waiting(name),
      recentCount: recentCount(name),
      log: logOf?.(key),
      failed,
    })
  }

  async #members(key: ChannelKey): Promise<ChannelExplanation['members']> {
    const { directory, maxMembersPerCall, isOnlineHere, limited } = this.#options
    const nowMs = this.#options.nowMs()
    let [count, mutedCount, onlineHereCount] = [0, 0, 0]
    const onlineHere: string[] = []
    const see = (uid: string, mutedUntilMs: number): void => {
      count++
      if (mutedUntilMs > nowMs) mutedCount++
      if (!isOnlineHere(uid)) return
      onlineHereCount++
      if (onlineHere.length < MAX_ONLINE) onlineHere.push(uid)
    }
    const pair = key.channelType === ChannelType.Person ? personChannelUIDs(key.channelID) : undefined
    for (const uid of pair ?? []) see(uid, 0)
    let cursor: string | undefined
    while (pair === undefined && count < maxMembersPerCall) {
      const from = cursor
      const limit = Math.min(PAGE_COUNT, maxMembersPerCall - count)
      const page = await limited(() => directory.members(key, { limit, ...(from !== undefined && { cursor: from }) }))
      for (const { uid, mutedUntilMs = 0 } of page.items) see(uid, mutedUntilMs)
      cursor = page.cursor
      if (cursor === undefined) break
    }
    return { count, isComplete: cursor === undefined, mutedCount, onlineHereCount, onlineHere }
  }
}
