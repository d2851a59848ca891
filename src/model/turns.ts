/** One at a time per name, in the order of the calls. Names that nobody waits for cost nothing. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>()

  /** Run `action` when every turn taken before it has ended; later ones wait for it. */
  take<T>(name: string, action: () => Promise<T>): Promise<T> {
    const running = this.after(name, action)
    const ended = running.then(ignore, ignore)
    this.#last.set(name, ended)
    void ended.then(() => {
      if (this.#last.get(name) === ended) this.#last.delete(name)
    })
    return running
  }

  /** Resolves when no turn is under way. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.all(this.#last.values())
  }

  /** Run `action` when every turn taken before it has ended, at once if there is none; nobody waits for it. */
  after<T>(name: string, action: () => Promise<T>): Promise<T> {
    const last = this.#last.get(name)
    return last === undefined ? action() : last.then(action)
  }
}

function ignore(): void {}
