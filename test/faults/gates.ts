import type { AnyLevel } from '../../src/adapters/level/database.ts'
import type { Storage } from 'imengine'

/** Where a process may die: before a call does anything, or when it has done everything and nobody has heard of it. */
export type Moment = 'before' | 'after'

/** What happens at a gate. */
export interface Fate {
  /** the number of the call, from 1 */
  readonly at: number
  readonly moment: Moment
  /**
   * 'crash': that call and all others never answer, and none begins any more. 'hang': that call alone never answers, whatever
   * it has done.
   */
  readonly kind: 'crash' | 'hang'
  readonly happens: () => void
}

const never = <T>(): Promise<T> => new Promise(() => undefined)

/** Numbers the calls that an engine makes to what stands around it, and ends the world, or one call, at one of them. */
export class Gates {
  /** the calls since `arm`, in order */
  readonly names: string[] = []
  readonly #fate: Fate | undefined
  #isArmed = false
  #hasHappened = false
  #hasCrashed = false

  constructor(fate?: Fate) {
    this.#fate = fate
  }

  /** Has what was to happen happened? */
  get hasHappened(): boolean {
    return this.#hasHappened
  }

  /** Calls count from now on. */
  arm(): void {
    this.#isArmed = true
  }

  pass<T>(name: string, action: () => T): T {
    if (this.#hasCrashed) return never() as T
    if (!this.#isArmed) return action()
    const fate = this.names.push(name) === this.#fate?.at ? this.#fate : undefined
    if (fate?.moment === 'before') return this.#strike(fate)
    const answer = action()
    if (!(answer instanceof Promise)) return fate === undefined ? answer : this.#strike(fate)
    return answer.then(
      (value: unknown) => (this.#hasCrashed ? never() : fate === undefined ? value : this.#strike(fate)),
      (reason: unknown) => {
        if (this.#hasCrashed) return never()
        throw reason
      },
    ) as T
  }

  /** An adapter whose methods are gates. Some answer a number at once, by their contract, and are none. */
  around<T extends object>(part: string, adapter: T, own: Partial<T> = {}): T {
    return new Proxy(adapter, {
      get: (target, name) => {
        if (typeof name === 'string' && Object.hasOwn(own, name)) return own[name as keyof T]
        const member: unknown = Reflect.get(target, name)
        if (typeof member !== 'function') return member
        const method = (member as (...args: unknown[]) => unknown).bind(target)
        return name === 'changeCount' ? method : (...args: unknown[]) => this.pass(`${part}.${String(name)}`, () => method(...args))
      },
    })
  }

  storage(storage: Storage): Storage {
    const messages = this.around('messages', storage.messages)
    const { outbox, tokens } = storage
    // A call that hangs alone lets later ones overtake it, so that nothing is promised to go ahead of anything.
    const precedes = outbox?.precedes === storage.messages && this.#fate?.kind !== 'hang' ? messages : undefined
    return {
      messages,
      channels: this.around('channels', storage.channels),
      cursors: this.around('cursors', storage.cursors),
      ...(tokens !== undefined && { tokens }),
      ...(outbox !== undefined && { outbox: this.around('outbox', outbox, { precedes } as Partial<typeof outbox>) }),
      open: () => storage.open?.(),
      close: () => this.pass('storage.close', () => storage.close?.()),
    }
  }

  /** A database whose writes are gates. */
  level(level: AnyLevel): AnyLevel {
    return new Proxy(level, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name)
        if (typeof member !== 'function') return member
        const method = (member as (...args: unknown[]) => unknown).bind(target)
        if (name !== 'batch') return method
        return () => {
          const batch = target.batch()
          const write = batch.write.bind(batch)
          return Object.assign(batch, { write: (options: Parameters<typeof write>[0]) => this.pass('db.write', () => write(options)) })
        }
      },
    })
  }

  #strike(fate: Fate): never {
    this.#hasHappened = true
    this.#hasCrashed = fate.kind === 'crash'
    fate.happens()
    return never() as never
  }
}
