import type { ChannelDirectory, PageQuery } from '../contracts/channel-directory.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import { ChannelType, commandKey, keepsConversations, type ChannelKey, type Page } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'

export interface ConversationKeysOptions {
  readonly uid: string
  readonly channels: ChannelDirectory
  readonly messages: MessageStore
  /** keys handed over at once; twice as many with commands */
  readonly pageCount: number
  /** also the channels of commands that belong to them; default false */
  readonly withCommands?: boolean
  readonly limited: <T>(ask: () => MaybePromise<T>) => Promise<T>
}

/**
 * Every channel that may be a conversation of the user, page by page: those they are a member of, from the directory, and
 * those with one other person, from the store, because nobody creates them.
 */
export async function* conversationKeys(options: ConversationKeysOptions): AsyncGenerator<readonly ChannelKey[], void, undefined> {
  const { uid, channels, messages, pageCount, limited } = options
  const sources: readonly ((query: PageQuery) => MaybePromise<Page<ChannelKey>>)[] = [
    (query) => channels.channelsOf(uid, query),
    (query) => messages.personChannelsOf(uid, query),
  ]
  for (const [index, source] of sources.entries()) {
    let cursor: string | undefined
    do {
      const query = { limit: pageCount, ...(cursor === undefined ? {} : { cursor }) }
      const page = await limited(() => source(query))
      // A person channel that somebody has given members as well is listed once: by the store.
      const isWanted = ({ channelType }: ChannelKey): boolean => keepsConversations(channelType) && (index === 1 || channelType !== ChannelType.Person)
      const keys = page.items.filter(isWanted)
      if (keys.length > 0) yield options.withCommands === true ? keys.flatMap((key) => [key, commandKey(key)]) : keys
      cursor = page.cursor
    } while (cursor !== undefined)
  }
}
