import { open, readFile, type FileHandle } from 'node:fs/promises'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  allowAnyToken,
  IMEngine,
  memoryChannelDirectory,
  memoryCursorStore,
  memoryMessageStore,
  type AppendBatch,
  type AppendResult,
  type ChannelKey,
  type Message,
  type MessageChange,
  type MessageStore,
  type Storage,
} from 'imengine'
import { attachNetServer } from 'imengine/net'

/** One line of the file: one of the three things that change a store. */
interface Command {
  readonly append?: readonly AppendBatch[]
  readonly truncate?: { readonly key: ChannelKey; readonly beforeSeq: number }
  readonly revise?: { readonly key: ChannelKey; readonly messageSeq: number; readonly change: MessageChange }
}

interface WaitingEntry {
  readonly line: string
  resolve(): void
  reject(error: Error): void
}

// #region store
/**
 * Messages in one file of JSON lines. Power loss: an append that has resolved is on the disk (fdatasync); a line that was
 * cut short was never acknowledged, and is dropped at the next start. A slow disk makes batches larger. Everything is held
 * in memory as well: this shows the contract, it is not a database. It has no `sweep`, which would have to be a line too:
 * what has expired stays in the file, and out of every answer.
 */
export class FileMessageStore implements MessageStore {
  readonly #path: string
  readonly #memory = memoryMessageStore({ maxMessages: 10_000_000, maxMessagesPerChannel: 10_000_000 })
  #file: FileHandle | undefined
  #fileBytes = 0
  #waiting: WaitingEntry[] = []
  #writing: Promise<void> | undefined

  constructor(path: string) {
    this.#path = path
  }

  async open(): Promise<void> {
    this.#file = await open(this.#path, 'a')
    const bytes = await readFile(this.#path)
    this.#fileBytes = bytes.lastIndexOf('\n') + 1
    await this.#file.truncate(this.#fileBytes)
    // The lines are commands. Doing them again, in order, gives the same numbers and the same verdicts on repeats.
    for (const line of bytes.toString('utf8', 0, this.#fileBytes).split('\n')) {
      const { append, truncate, revise } = line === '' ? {} : commandOf(line)
      if (append !== undefined) void this.#memory.append(append)
      if (truncate !== undefined) void this.#memory.truncate(truncate.key, truncate.beforeSeq)
      if (revise !== undefined) void this.#memory.revise(revise.key, revise.messageSeq, revise.change)
    }
  }

  async close(): Promise<void> {
    await this.#writing
    await this.#file?.close()
    this.#file = undefined
  }

  async append(batches: readonly AppendBatch[]): Promise<readonly (readonly AppendResult[])[]> {
    const { append = [] } = await this.#write({ append: batches })
    return this.#memory.append(append)
  }

  async truncate(key: ChannelKey, beforeSeq: number): Promise<{ readonly removedCount: number }> {
    await this.#write({ truncate: { key, beforeSeq } })
    return this.#memory.truncate(key, beforeSeq)
  }

  async revise(key: ChannelKey, messageSeq: number, change: MessageChange): Promise<Message | undefined> {
    const { revise = { change } } = await this.#write({ revise: { key, messageSeq, change } })
    return this.#memory.revise(key, messageSeq, revise.change)
  }

  readonly range: MessageStore['range'] = (key, query) => this.#memory.range(key, query)
  readonly lastSeq: MessageStore['lastSeq'] = (key) => this.#memory.lastSeq(key)
  readonly get: MessageStore['get'] = (messageIDs) => this.#memory.get(messageIDs)
  readonly findByClientMsgNo: MessageStore['findByClientMsgNo'] = (key, fromUID, clientMsgNo) =>
    this.#memory.findByClientMsgNo(key, fromUID, clientMsgNo)

  readonly summaries: MessageStore['summaries'] = (uid, keys) => this.#memory.summaries(uid, keys)
  readonly countAfter: MessageStore['countAfter'] = (key, afterSeq) => this.#memory.countAfter(key, afterSeq)
  readonly personChannelsOf: MessageStore['personChannelsOf'] = (uid, query) => this.#memory.personChannelsOf(uid, query)

  /**
   * Group commit: what comes while one write is under way goes with the next one. Lines leave in the order they came.
   * @returns the command as it is in the file, whatever has become of the caller's objects
   */
  #write(command: Command): Promise<Command> {
    const line = JSON.stringify(command, textOfBytes)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ line: `${line}\n`, resolve: () => resolve(commandOf(line)), reject })
      this.#writing ??= this.#writeAll().finally(() => (this.#writing = undefined))
    })
  }

  async #writeAll(): Promise<void> {
    await Promise.resolve() // what is appended in the same turn goes in the same write
    while (this.#waiting.length > 0) {
      const entries = this.#waiting.splice(0)
      try {
        await this.#writeLines(Buffer.from(entries.map((entry) => entry.line).join('')))
        for (const entry of entries) entry.resolve()
      } catch (error) {
        for (const entry of entries) entry.reject(error as Error)
      }
    }
  }

  async #writeLines(bytes: Buffer): Promise<void> {
    const file = this.#file
    if (file === undefined) throw new Error(`${this.#path} is not open`)
    try {
      await file.appendFile(bytes)
      await file.datasync()
      this.#fileBytes += bytes.length
    } catch (error) {
      // Take back what may be there in part. Should that fail too, better no store than one with a torn line in its middle.
      await file.truncate(this.#fileBytes).catch(() => (this.#file = undefined))
      throw error
    }
  }
}
// #endregion

// #region storage
/** Mix and match: messages survive, members and positions do not. */
export function fileStorage(path: string): Storage {
  const messages = new FileMessageStore(path)
  return {
    messages,
    channels: memoryChannelDirectory(),
    cursors: memoryCursorStore(),
    description: `messages in ${path}`,
    open: () => messages.open(),
    close: () => messages.close(),
  }
}
// #endregion

/** A payload is bytes, which JSON does not have: they travel as base64 text, and nothing else in a message is an object. */
function textOfBytes(this: unknown, name: string, value: unknown): unknown {
  const raw = (this as Record<string, unknown>)[name] // before Buffer.toJSON
  return raw instanceof Uint8Array ? Buffer.from(raw).toString('base64') : value
}

function bytesOfText(name: string, value: unknown): unknown {
  return name === 'payload' ? Buffer.from(value as string, 'base64') : value
}

function commandOf(line: string): Command {
  return JSON.parse(line, bytesOfText) as Command
}

export async function start(wantedPort = 0, path = join(tmpdir(), `imengine-example-${process.pid}.jsonl`)) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: fileStorage(path) })
  await engine.start()
  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
