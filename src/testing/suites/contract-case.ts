import type { MaybePromise } from '../../model/maybe-promise.ts'

/** One promise of a contract, for any test runner: `for (const c of suite) it(c.name, c.run)`. It rejects when broken. */
export interface ContractCase {
  readonly name: string
  run(): Promise<void>
}

/** An implementation to be tested. Every case opens one of its own, with nothing in it. */
export interface Opened<T> {
  readonly subject: T
  /** called after the case, also when it has failed */
  close?(): MaybePromise<void>
}

export interface ContractOptions<T, O extends Opened<T> = Opened<T>> {
  open(): MaybePromise<O>
}

export interface DurableContractOptions<T, O extends Opened<T> = Opened<T>> extends ContractOptions<T, O> {
  /**
   * End what `open` gave, as a crash or an orderly end would, and open the same data again. Without it the promises about
   * what survives are not checked. The `close` of what it returns is called instead of the first one's.
   */
  reopen?(opened: O): MaybePromise<O>
}

/** A promise in words that can be false, and the check of it. */
export type Scenario<T> = readonly [name: string, check: (subject: T) => Promise<void>]

export function casesOf<T>({ open }: ContractOptions<T>, scenarios: readonly Scenario<T>[]): ContractCase[] {
  return scenarios.map(([name, check]) => ({
    name,
    run: async () => {
      const opened = await open()
      try {
        await check(opened.subject)
      } finally {
        await opened.close?.()
      }
    },
  }))
}

/** A promise about what survives: `before` on the first life, `after` on the second. */
export interface DurableScenario<T> {
  readonly name: string
  before(subject: T): Promise<void>
  after(subject: T): Promise<void>
}

export function durableCasesOf<T, O extends Opened<T>>(
  { open, reopen }: DurableContractOptions<T, O>,
  scenarios: readonly DurableScenario<T>[],
): ContractCase[] {
  if (reopen === undefined) return []
  return scenarios.map(({ name, before, after }) => ({
    name,
    run: async () => {
      let opened = await open()
      try {
        await before(opened.subject)
        opened = await reopen(opened)
        await after(opened.subject)
      } finally {
        await opened.close?.()
      }
    },
  }))
}

/** Start a call whose answer may come now or later; a throw becomes a rejection. Calls start in the order they are made. */
export async function started<T>(call: () => MaybePromise<T>): Promise<T> {
  return await call()
}
