import type { EventContext } from '../contracts/handler.ts'
import type { IMErrorContext } from '../errors.ts'

/** What the events of all chains share: the notes of handlers, and an abort signal that is made only when asked for. */
export abstract class EngineEvent implements EventContext {
  abstract readonly event: string
  /** aborted when the engine closes */
  protected abstract readonly closing: AbortSignal
  private notes: Record<string, unknown> | undefined
  private controller: AbortController | undefined
  private over = false

  get state(): Record<string, unknown> {
    return (this.notes ??= {})
  }

  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController()
      if (this.over) this.controller.abort()
    }
    return AbortSignal.any([this.controller.signal, this.closing])
  }

  /** A step has outlived its time-out. `over`: so has the chain; otherwise later steps get a signal of their own. */
  abort(over: boolean): void {
    this.over = over
    this.controller?.abort()
    if (!over) this.controller = undefined
  }

  abstract describe(): IMErrorContext
}
