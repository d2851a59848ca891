import { channelKeyString, type ChannelKey } from '../../model/channel.ts'

/**
 * One at a time per channel: for what reads a channel's messages and then changes or removes them. Appends do not take part;
 * they touch no message that is there already.
 */
export class ChannelLock {
  readonly #last = new Map<string, Promise<unknown>>()

  run<T>(key: ChannelKey, action: () => Promise<T>): Promise<T> {
    const name = channelKeyString(key)
    const running = (this.#last.get(name) ?? Promise.resolve()).then(action)
    const settled = running.then(
      () => undefined,
      () => undefined,
    )
    this.#last.set(name, settled)
    void settled.then(() => {
      if (this.#last.get(name) === settled) this.#last.delete(name)
    })
    return running
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.all(this.#last.values())
  }
}
