import { IMError } from '../../errors.ts'
import { NOWHERE, ROW_BYTES, type CursorRow, type RowChange } from './cursor-row.ts'
import type { Operations } from './database.ts'
import { EMPTY } from './keys.ts'
import type { WriteTask } from './writer.ts'

export interface CursorCallOptions {
  /** everything that is hidden in its rows is to be shown again */
  readonly showsAll: boolean
  /** a row is durable */
  readonly wrote: (key: Buffer, value: Buffer | undefined) => void
  /** the call has ended, well or not, and leaves the row as it is now */
  readonly settled: (row: CursorRow) => void
}

/** One put, remove, flush or hide on its way to the disk. */
export class CursorCall implements WriteTask {
  readonly showsAll: boolean
  readonly written: Promise<void>
  /** while it is not in the writer's hands: resolves when it is, or has failed */
  submitted: Promise<void> | undefined
  bytes = 0
  /** why nothing of it has been written */
  failure: IMError | undefined
  readonly #options: CursorCallOptions
  readonly #changes = new Map<CursorRow, RowChange>()
  /** keys of hidden messages to be shown again */
  readonly #shown: Buffer[] = []
  #hiding: { readonly row: CursorRow; readonly keys: readonly Buffer[] } | undefined
  #handedOver: (() => void) | undefined
  #resolve!: () => void
  #reject!: (error: IMError) => void

  constructor(options: CursorCallOptions) {
    this.#options = options
    this.showsAll = options.showsAll
    this.written = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  /** It has to be prepared first. */
  wait(): void {
    this.submitted = new Promise((resolve) => (this.#handedOver = resolve))
  }

  handOver(): void {
    this.submitted = undefined
    this.#handedOver?.()
  }

  /** Does it write something that had been advanced, and would be lost with it? */
  get raisesAny(): boolean {
    for (const { raise } of this.#changes.values()) if (raise !== NOWHERE) return true
    return false
  }

  /** whose positions it changes */
  get rows(): Iterable<CursorRow> {
    return this.#changes.keys()
  }

  /** The change it makes to the row's positions, with what has been advanced before it. */
  changeOf(row: CursorRow): RowChange {
    let change = this.#changes.get(row)
    if (change === undefined) {
      change = { row, raise: row.raise, sets: {}, result: undefined }
      row.raise = NOWHERE
      row.changes.push(change)
      this.#changes.set(row, change)
      this.bytes += row.key.length + ROW_BYTES
    }
    return change
  }

  hide(row: CursorRow, keys: readonly Buffer[]): void {
    row.hiding.add(keys)
    this.#hiding = { row, keys }
    for (const key of keys) this.bytes += key.length
  }

  show(keys: readonly Buffer[]): void {
    for (const key of keys) {
      this.#shown.push(key)
      this.bytes += key.length
    }
  }

  plan(operations: Operations): void {
    for (const { row } of this.#changes.values()) {
      if (row.planned === undefined) throw new IMError('IM_STORE_UNAVAILABLE', { detail: 'a write before this one has failed' })
    }
    for (const change of this.#changes.values()) {
      change.row.plan(change)
      if (change.result !== undefined) operations.push(change.row.key, change.result.bytes)
    }
    for (const key of this.#shown) operations.push(key, undefined)
    for (const key of this.#hiding?.keys ?? []) operations.push(key, EMPTY)
  }

  done(): void {
    for (const change of this.#changes.values()) {
      if (change.result !== undefined) this.#options.wrote(change.row.key, change.result.bytes)
      change.row.commit(change)
    }
    this.#settle()
    this.#resolve()
  }

  failed(error: IMError): void {
    this.failure = error
    this.handOver()
    for (const change of this.#changes.values()) change.row.giveBack(change)
    this.#settle()
    this.#reject(error)
  }

  #settle(): void {
    if (this.#hiding !== undefined) this.#hiding.row.hiding.delete(this.#hiding.keys)
    for (const row of this.#changes.keys()) this.#options.settled(row)
    if (this.#hiding !== undefined) this.#options.settled(this.#hiding.row)
  }
}
