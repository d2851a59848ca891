/** The three memory stores as one Storage. Power loss, and the end of the process, lose everything. */
import type { Storage } from '../../contracts/storage.ts'
import { memoryChannelDirectory } from './channel-directory.ts'
import { memoryCursorStore } from './cursor-store.ts'
import { memoryMessageStore, type MemoryMessageStoreOptions } from './message-store.ts'

/** What an engine without a `storage` option uses: fast, bounded, and gone with the process. */
export function memoryStorage(options: MemoryMessageStoreOptions = {}): Storage {
  return {
    messages: memoryMessageStore(options),
    channels: memoryChannelDirectory(),
    cursors: memoryCursorStore(),
    description: 'memory (nothing survives the process)',
  }
}
