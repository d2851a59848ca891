/** What one task waits for, which others may cut short. One wait at a time; who wakes while nothing is waited for wakes nobody. */
export class Wake {
  #end: (() => void) | undefined

  wake(): void {
    this.#end?.()
  }

  /** Resolves when woken. */
  woken(): Promise<'woken'> {
    return new Promise((resolve) => {
      this.#end = () => {
        this.#end = undefined
        resolve('woken')
      }
    })
  }

  /** What is given up goes on: whoever made `answer` sees to what becomes of it. */
  async unless<T>(answer: Promise<T>): Promise<T | 'woken'> {
    const woken = this.woken()
    try {
      return await Promise.race([answer, woken])
    } finally {
      this.#end = undefined
    }
  }

  /** @returns whether it was ended before its time */
  async pause(ms: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const over = new Promise<'over'>((resolve) => (timer = setTimeout(resolve, ms, 'over')))
    const end = await this.unless(over)
    clearTimeout(timer)
    return end === 'woken'
  }
}
