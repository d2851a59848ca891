/** The memory stores as one Storage. Power loss, and the end of the process, lose everything. */
import type { ChannelDirectory } from '../../contracts/channel-directory.ts'
import type { Outbox } from '../../contracts/outbox.ts'
import type { Storage } from '../../contracts/storage.ts'
import type { TokenStore } from '../../contracts/token-store.ts'
import { memoryChannelDirectory } from './channel-directory.ts'
import { memoryCursorStore } from './cursor-store.ts'
import { memoryMessageStore, type MemoryMessageStoreOptions } from './message-store.ts'
import { memoryOutbox } from './outbox.ts'
import { memoryTokenStore } from './token-store.ts'

/** `Storage` with all its parts. */
export interface MemoryStorage extends Storage {
  readonly channels: Required<ChannelDirectory>
  readonly tokens: TokenStore
  readonly outbox: Outbox
}

/** What an engine without a `storage` option uses: fast, bounded, and gone with the process. */
export function memoryStorage(options: MemoryMessageStoreOptions = {}): MemoryStorage {
  const messages = memoryMessageStore(options)
  return {
    messages,
    channels: memoryChannelDirectory(),
    cursors: memoryCursorStore(),
    tokens: memoryTokenStore(),
    outbox: memoryOutbox({ precedes: messages }),
    description: 'memory (nothing survives the process)',
  }
}
