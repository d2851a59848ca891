import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as passes } from 'node:timers/promises'
import { allowAnyToken, ChannelType, IMEngine, type Message, type Plugin, type PluginHost } from 'imengine'
import { attachNetServer } from 'imengine/net'
import PQueue from 'p-queue'

/** Wake these users up: a message has come while they were offline. */
export interface PushNote {
  readonly uids: readonly string[]
  readonly message: Message
}

export interface OfflinePushOptions {
  /** hand a batch to the push service, mostly by an HTTP POST; a rejection means: try again */
  readonly post: (notes: readonly PushNote[], signal: AbortSignal) => Promise<unknown>
  /** a batch goes when it has so many notes, or when the first one has waited for so long; default 100, and 200 ms */
  readonly maxBatchCount?: number
  readonly maxWaitMs?: number
  /** calls under way at the same time; default 4 */
  readonly maxCalls?: number
  /** one call; beyond it counts as failed; default 10 000 */
  readonly callTimeoutMs?: number
  /** tries of a batch; the pauses between them double, beginning with `pauseMs`; default 5, and 500 ms */
  readonly maxTries?: number
  readonly pauseMs?: number
  /** notes that wait or are on their way; beyond it the newest are left out, and a line of the log says how many; default 10 000 */
  readonly maxNotes?: number
}

// #region offline-push
/**
 * What users miss is told to a push service, in batches. At most once: the message itself is stored, and what is lost is that
 * a phone lights up. A service that is slow or down delays no message; it costs notes beyond `maxNotes`.
 */
export function offlinePush(options: OfflinePushOptions): Plugin {
  return {
    name: 'offline-push',
    setup(host) {
      const bridge = new PushBridge(host, options)
      host.on('offlineMessage', ({ messages, uids }) => {
        for (const message of messages) bridge.add({ message, uids })
      })
      host.onClose(() => bridge.drain())
    },
  }
}

class PushBridge {
  readonly #host: PluginHost
  readonly #options: Required<OfflinePushOptions>
  readonly #queue: PQueue
  #batch: PushNote[] = []
  #cancelFlush: (() => void) | undefined
  /** waiting or on their way */
  #noteCount = 0
  #leftOutCount = 0
  #isDraining = false
  readonly #endPauses = new Set<() => void>()

  constructor(host: PluginHost, options: OfflinePushOptions) {
    this.#host = host
    this.#options = {
      maxBatchCount: 100, maxWaitMs: 200, maxCalls: 4, callTimeoutMs: 10_000, maxTries: 5, pauseMs: 500, maxNotes: 10_000, ...options,
    }
    this.#queue = new PQueue({ concurrency: this.#options.maxCalls })
  }

  add(note: PushNote): void {
    if (this.#noteCount >= this.#options.maxNotes) return void this.#leftOutCount++
    this.#noteCount++
    this.#batch.push(note)
    if (this.#batch.length >= this.#options.maxBatchCount) this.#flush()
    else this.#cancelFlush ??= this.#host.timers.after(this.#options.maxWaitMs, () => this.#flush())
  }

  /** Everything gets one more try, at once. The engine sees to it that this does not take for ever. */
  async drain(): Promise<void> {
    this.#isDraining = true
    this.#flush()
    for (const end of this.#endPauses) end()
    await this.#queue.onIdle()
  }

  #flush(): void {
    this.#cancelFlush?.()
    this.#cancelFlush = undefined
    const notes = this.#batch
    this.#batch = []
    if (notes.length > 0) void this.#queue.add(() => this.#deliver(notes)) // which never rejects
  }

  async #deliver(notes: readonly PushNote[]): Promise<void> {
    const { maxTries, pauseMs } = this.#options
    for (let tryCount = 1; ; tryCount++) {
      const wasDraining = this.#isDraining
      const failure = await this.#post(notes)
      if (failure === undefined) break
      if (tryCount >= maxTries || wasDraining || this.#host.signal.aborted) {
        this.#host.logger.error({ noteCount: notes.length, tryCount, cause: failure }, 'push given up')
        break
      }
      await this.#pause(pauseMs * 2 ** (tryCount - 1))
    }
    this.#noteCount -= notes.length
    if (this.#leftOutCount > 0) this.#host.logger.warn({ leftOutCount: this.#leftOutCount }, 'too much to push: notes left out')
    this.#leftOutCount = 0
  }

  /** @returns what went wrong, if anything did */
  async #post(notes: readonly PushNote[]): Promise<string | undefined> {
    const { post, callTimeoutMs } = this.#options
    const call = new AbortController()
    const signal = AbortSignal.any([call.signal, this.#host.signal])
    const aborted = new Promise<string>((resolve) => signal.addEventListener('abort', () => resolve('no answer in time'), { once: true }))
    const cancel = this.#host.timers.after(callTimeoutMs, () => call.abort())
    try {
      const answered = post(notes, signal).then(() => undefined, (reason: unknown) => String(reason))
      return await Promise.race([answered, aborted])
    } catch (thrown) {
      return String(thrown)
    } finally {
      cancel()
    }
  }

  async #pause(delayMs: number): Promise<void> {
    if (this.#isDraining) return
    await new Promise<void>((resolve) => {
      const end = (): void => {
        this.#endPauses.delete(end)
        cancel()
        resolve()
      }
      const cancel = this.#host.timers.after(delayMs, end)
      this.#endPauses.add(end)
    })
  }
}
// #endregion

export async function start(wantedPort = 0) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
  const woken: string[] = []
  /** In its place: `fetch(url, { method: 'POST', body: JSON.stringify(...), signal })`, and a throw when it answers with an error. */
  async function post(notes: readonly PushNote[], signal: AbortSignal): Promise<void> {
    await passes(10, undefined, { signal })
    woken.push(...notes.flatMap(({ uids }) => uids))
  }
  engine.use(offlinePush({ post }))
  await engine.start()
  await engine.channels.create({ channelID: 'team', channelType: ChannelType.Group }, { subscribers: ['ann', 'bob', 'cat'] })
  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    woken,
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
