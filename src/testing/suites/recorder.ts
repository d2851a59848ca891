/** Things that happen, kept in order, and a way to wait until enough of them have. */
export class Recorder<T> {
  readonly items: T[] = []
  #waiting: { readonly isEnough: () => boolean; readonly resolve: () => void }[] = []

  add(item: T): void {
    this.items.push(item)
    this.look()
  }

  /** Something that a condition may depend on has changed. */
  look(): void {
    const met = this.#waiting.filter((waiter) => waiter.isEnough())
    this.#waiting = this.#waiting.filter((waiter) => !met.includes(waiter))
    for (const waiter of met) waiter.resolve()
  }

  /** Resolves when the condition holds; it is looked at now and after every change. */
  until(isEnough: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push({ isEnough, resolve })
      this.look()
    })
  }

  untilCount(count: number): Promise<void> {
    return this.until(() => this.items.length >= count)
  }
}

/** A door that is closed until somebody opens it. */
export class Gate {
  open: () => void = () => {}
  readonly opened = new Promise<void>((resolve) => {
    this.open = resolve
  })
}

/** Let what is under way go on for a while: enough to see something that should not happen, if it happens soon. */
export async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}
