import type { PageQuery } from '../contracts/channel-directory.ts'
import type { Page } from '../model/channel.ts'
import type { MaybePromise } from '../model/maybe-promise.ts'

/** Lets everything else have its turn. */
export type Pause = () => Promise<void>

/** What is written, asked or forgotten at once: some milliseconds' worth. */
export const PIECE_COUNT = 1_000

/** Large work in pieces, one after the other, with the event loop getting a turn between two of them. */
export async function inPieces<T>(items: readonly T[], pause: Pause, action: (piece: readonly T[]) => Promise<void>): Promise<void> {
  for (let first = 0; first < items.length; first += PIECE_COUNT) {
    if (first > 0) await pause()
    await action(items.length <= PIECE_COUNT ? items : items.slice(first, first + PIECE_COUNT))
  }
}

/** A listing page by page, with the event loop getting a turn between two of them. */
export async function* pagesOf<T>(ask: (query: PageQuery) => MaybePromise<Page<T>>, pause: Pause): AsyncGenerator<readonly T[], void, undefined> {
  let cursor: string | undefined
  do {
    if (cursor !== undefined) await pause()
    const page = await ask({ limit: PIECE_COUNT, ...(cursor === undefined ? {} : { cursor }) })
    if (page.items.length > 0) yield page.items
    cursor = page.cursor
  } while (cursor !== undefined)
}
