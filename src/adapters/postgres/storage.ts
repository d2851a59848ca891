import type { ChannelDirectory } from '../../contracts/channel-directory.ts'
import type { CursorStore } from '../../contracts/cursor-store.ts'
import type { MessageStore } from '../../contracts/message-store.ts'
import type { Outbox } from '../../contracts/outbox.ts'
import type { Storage } from '../../contracts/storage.ts'
import type { TokenStore } from '../../contracts/token-store.ts'
import { PostgresChannelDirectory } from './channel-directory.ts'
import { PostgresCursorStore } from './cursor-store.ts'
import { Database } from './database.ts'
import { InstanceLock } from './instance-lock.ts'
import { PostgresMessageStore } from './message-store.ts'
import { migrate } from './migrate.ts'
import { checkOptions, type PostgresStorageOptions } from './options.ts'
import { PostgresOutbox } from './outbox.ts'
import { Texts } from './texts.ts'
import { PostgresTokenStore } from './token-store.ts'

/** `Storage`, with everything there is. */
export interface PostgresStorage extends Storage {
  readonly messages: MessageStore
  readonly channels: ChannelDirectory
  readonly cursors: CursorStore
  readonly tokens: TokenStore
  readonly outbox: Outbox
  open(): Promise<void>
  close(): Promise<void>
}

/**
 * Messages, channels, positions, tokens and what is still to be told in a PostgreSQL database, which several engines may use
 * at once: their numbers of a channel are one row, and a repeat is recognised wherever it comes.
 *
 * What a call has resolved for is as safe as the server's `synchronous_commit` makes it. A call that rejects may have taken
 * effect when the connection broke; repeated, it is recognised by its clientMsgNo. The tables are in `docs/postgres.md`.
 * @throws TypeError for wrong options. `open` rejects with IM_DRIVER_MISSING, IM_STORE_DENIED, IM_STORE_FORMAT,
 *   IM_NOT_SUPPORTED, IM_STORE_FULL or IM_STORE_UNAVAILABLE
 */
export function postgresStorage(options: PostgresStorageOptions): PostgresStorage {
  const checked = checkOptions(options)
  const database = new Database(checked)
  const texts = new Texts(database)
  const messages = new PostgresMessageStore({ ...checked, database, texts, maxStatements: checked.maxAppendStatements })
  const cursors = new PostgresCursorStore(database, texts)
  const lock = new InstanceLock(database, checked.instance)
  const outbox = new PostgresOutbox({ ...checked, database, lock })
  let closing: Promise<void> | undefined
  const end = async (): Promise<void> => {
    try {
      if (database.isOpen) await cursors.flush()
    } finally {
      await messages.idle()
      await outbox.idle()
      await lock.release()
      await database.close()
    }
  }
  return {
    messages,
    channels: new PostgresChannelDirectory(database, texts),
    cursors,
    tokens: new PostgresTokenStore(database, texts),
    outbox,
    description: `postgres (schema ${checked.schema})`,
    open: async () => {
      await closing?.catch(() => undefined)
      await database.open()
      messages.forget() // of an earlier life
      texts.forget()
      try {
        await migrate(database)
      } catch (error) {
        await database.close()
        throw error
      }
    },
    close: () => (closing ??= end().finally(() => (closing = undefined))),
  }
}
