import type { AbortGroup, WaitSignal } from '../contracts/abort-group.ts'
import type { EventContext, EventState } from '../contracts/handler.ts'
import { IMError, type IMErrorContext } from '../errors.ts'
import { Wait } from './wait.ts'

/** What the events of all chains share: the notes of handlers, and an abort signal that is made only when asked for. */
export abstract class EngineEvent implements EventContext {
  abstract readonly event: string
  protected abstract readonly waits: AbortGroup
  private notes: EventState | undefined
  private controller: AbortController | undefined
  private wait: Wait | undefined
  private over: boolean

  constructor() {
    // Assigned here and not as fields: one is made for every frame, and fields of a base class cost a call of their own.
    this.notes = undefined
    this.controller = undefined
    this.wait = undefined
    this.over = false
  }

  get state(): EventState {
    return (this.notes ??= {})
  }

  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController()
      if (this.over) this.controller.abort(new IMError('IM_ABORTED'))
      else this.waits.add(this.controller)
    }
    return this.controller.signal
  }

  /** The same for the engine's own steps, which needs no `AbortController`. */
  get waitSignal(): WaitSignal {
    if (this.wait === undefined) {
      this.wait = new Wait()
      if (this.over) this.wait.abort(new IMError('IM_ABORTED'))
      else this.waits.add(this.wait)
    }
    return this.wait
  }

  /** The chain has ended, or a step has outlived it. */
  get isOver(): boolean {
    return this.over
  }

  /** A step has outlived its time-out. `over`: so has the chain; otherwise later steps get a signal of their own. */
  abort(over: boolean): void {
    this.over = over
    for (const wait of [this.controller, this.wait]) {
      if (wait === undefined) continue
      wait.abort(new IMError('IM_ABORTED'))
      this.waits.remove(wait)
    }
    if (!over) this.controller = this.wait = undefined
  }

  /** The chain has ended: nothing of it waits any more. */
  release(): void {
    this.over = true
    if (this.controller !== undefined) this.waits.remove(this.controller)
    if (this.wait !== undefined) this.waits.remove(this.wait)
  }

  abstract describe(): IMErrorContext
}
