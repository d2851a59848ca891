/** Channels whose messages are not proposed yet, so that more of them may go with the same entry. They are let go together. */
export class Gathering {
  #over: Promise<void> | undefined
  #end: (() => void) | undefined
  #limit: NodeJS.Timeout | undefined
  #channelCount = 0
  #count = 0
  #bytes = 0

  /** about how many messages: those that had come when their channels began to wait */
  get count(): number {
    return this.#count
  }

  /** about how many bytes of them */
  get bytes(): number {
    return this.#bytes
  }

  /**
   * @param maxMs  nobody is held for longer
   * @returns resolves when they are let go
   */
  join(count: number, bytes: number, maxMs: number): Promise<void> {
    this.#over ??= new Promise((resolve) => (this.#end = resolve))
    this.#limit ??= setTimeout(() => this.letGo(), maxMs)
    this.#channelCount++
    this.#count += count
    this.#bytes += bytes
    return this.#over
  }

  /** @returns how many channels there were */
  letGo(): number {
    const end = this.#end
    const channelCount = this.#channelCount
    clearTimeout(this.#limit)
    this.#over = this.#end = this.#limit = undefined
    this.#channelCount = this.#count = this.#bytes = 0
    end?.()
    return channelCount
  }
}
