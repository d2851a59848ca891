import type { MaybePromise } from '../model/maybe-promise.ts'
import type { ChannelDirectory } from './channel-directory.ts'
import type { CursorStore } from './cursor-store.ts'
import type { MessageStore } from './message-store.ts'
import type { Outbox } from './outbox.ts'
import type { TokenStore } from './token-store.ts'

/** What `memoryStorage()` and its durable relatives return: contracts that a host may mix and wrap. */
export interface Storage {
  readonly messages: MessageStore
  readonly channels: ChannelDirectory
  readonly cursors: CursorStore
  /** for `engine.users.setToken`; a host that keeps its users' tokens elsewhere has no use for it */
  readonly tokens?: TokenStore
  /** for notifications that must survive a restart; without it they wait in memory */
  readonly outbox?: Outbox
  /**
   * All that the nodes of a log have in common, as it is at one moment, with the positions of the logs: for `restore` of another
   * node with a storage of the same kind. The outbox is this node's own and left out. Chunks of up to 256 KiB.
   */
  snapshot?(): AsyncIterable<Uint8Array>
  /**
   * Replace all that by a snapshot. Called after `open` and before anything else is asked. When it rejects, or the process ends in
   * the middle, what is left has no positions, so that the next start asks for a snapshot again.
   */
  restore?(chunks: AsyncIterable<Uint8Array>): Promise<void>
  /** said once in the log at start, e.g. 'memory (nothing survives the process)' */
  readonly description?: string
  /** Called once by `engine.start()` before anything else is asked. */
  open?(): MaybePromise<void>
  /**
   * Called once by `engine.close()` after everything that was accepted has settled. When `close` has waited for an `open` in vain,
   * before that has come back, and once more when it has.
   */
  close?(): MaybePromise<void>
}
