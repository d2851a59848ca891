/** Channels whose messages are not proposed yet, so that more of them may go with the same entry. They are let go together. */
export class Gathering {
  #over: Promise<void> | undefined
  #end: (() => void) | undefined
  #count = 0

  /** about how many messages */
  get count(): number {
    return this.#count
  }

  /** @returns resolves when they are let go */
  join(count: number): Promise<void> {
    this.#over ??= new Promise((resolve) => (this.#end = resolve))
    this.#count += count
    return this.#over
  }

  letGo(): void {
    const end = this.#end
    this.#over = this.#end = undefined
    this.#count = 0
    end?.()
  }
}
