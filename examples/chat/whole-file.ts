import { open, readFile, rename } from 'node:fs/promises'

/**
 * A value as JSON in a file that is whole at all times: it is written beside it, and takes its place once it is on the disk.
 * What is written under `save` survives power loss on file systems that keep renames in order.
 */
export class WholeFile<T> {
  readonly #path: string
  readonly #value: () => T
  #writing: Promise<unknown> = Promise.resolve()
  #waiting: Promise<void> | undefined

  /** @param value what is to be saved, asked for when its turn comes */
  constructor(path: string, value: () => T) {
    this.#path = path
    this.#value = value
  }

  /** What was saved last, undefined for nothing. @throws Error that names a file which is not JSON */
  async read(): Promise<T | undefined> {
    const text = await readFile(this.#path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    try {
      return text === undefined ? undefined : (JSON.parse(text) as T)
    } catch (cause) {
      throw new Error(`${this.#path} is not JSON`, { cause })
    }
  }

  /** Resolves when the value, as it is at the call or later, is saved. Calls during one write share the next. */
  save(): Promise<void> {
    if (this.#waiting === undefined) {
      this.#waiting = this.#writing.then(() => {
        this.#waiting = undefined
        return this.#write()
      })
      this.#writing = this.#waiting.catch(() => undefined)
    }
    return this.#waiting
  }

  async #write(): Promise<void> {
    const besides = `${this.#path}.new`
    // Tokens are in it: nobody else's business.
    const file = await open(besides, 'w', 0o600)
    try {
      await file.writeFile(JSON.stringify(this.#value(), undefined, 1))
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(besides, this.#path)
  }
}
