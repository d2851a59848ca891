import type { ChannelDirectory, ChannelList, PageQuery } from '../contracts/channel-directory.ts'
import type { ChannelKey, Page } from '../model/channel.ts'
import { checkKey, checkUID, checkUIDs } from './check.ts'
import { inPieces, pagesOf, type Pause } from './pieces.ts'

/** One of a channel's two lists. Changes hold for the next SEND; at most `maxMembersPerCall` uids at once. */
export interface ListAPI {
  add(key: ChannelKey, uids: readonly string[]): Promise<void>
  /** These and no others. New ones come on before old ones go off, so that no allow list is empty, and open to all, in between. */
  set(key: ChannelKey, uids: readonly string[]): Promise<void>
  remove(key: ChannelKey, uids: readonly string[]): Promise<void>
  clear(key: ChannelKey): Promise<void>
  has(key: ChannelKey, uid: string): Promise<boolean>
  list(key: ChannelKey, query?: PageQuery): Promise<Page<string>>
}

export interface ListOptions {
  readonly directory: ChannelDirectory
  readonly list: ChannelList
  readonly maxCount: number
  readonly pause: Pause
  readonly inTurn: (key: ChannelKey, action: () => Promise<void>) => Promise<void>
  /** these were not on the list before */
  readonly added: (key: ChannelKey, uids: readonly string[]) => Promise<void>
}

export function listAPI({ directory, list, maxCount, pause, inTurn, added }: ListOptions): ListAPI {
  const add = (key: ChannelKey, uids: readonly string[]): Promise<void> =>
    inPieces(uids, pause, async (piece) => {
      const listed = await Promise.all(piece.map(async (uid) => directory.isListed(key, list, uid)))
      const fresh = piece.filter((_uid, index) => listed[index] !== true)
      if (fresh.length === 0) return
      await directory.addToList(key, list, fresh)
      await added(key, fresh)
    })
  const removeBut = async (key: ChannelKey, kept: ReadonlySet<string>): Promise<void> => {
    for await (const page of pagesOf((query) => directory.listed(key, list, query), pause)) {
      const leaving = page.filter((uid) => !kept.has(uid))
      if (leaving.length > 0) await directory.removeFromList(key, list, leaving)
    }
  }
  return {
    add: async (key, uids) => {
      const [checked, wanted] = [checkKey(key), checkUIDs('uids', uids, maxCount)]
      return inTurn(checked, () => add(checked, wanted))
    },
    set: async (key, uids) => {
      const [checked, wanted] = [checkKey(key), checkUIDs('uids', uids, maxCount)]
      return inTurn(checked, async () => {
        await add(checked, wanted)
        await removeBut(checked, new Set(wanted))
      })
    },
    remove: async (key, uids) => {
      const [checked, leaving] = [checkKey(key), checkUIDs('uids', uids, maxCount)]
      return inTurn(checked, () => inPieces(leaving, pause, async (piece) => directory.removeFromList(checked, list, piece)))
    },
    clear: async (key) => {
      const checked = checkKey(key)
      return inTurn(checked, () => removeBut(checked, new Set()))
    },
    has: async (key, uid) => directory.isListed(checkKey(key), list, checkUID('uid', uid)),
    list: async (key, query) => directory.listed(checkKey(key), list, query),
  }
}
