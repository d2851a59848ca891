import type { Timers } from '../contracts/clock.ts'
import type { Handler } from '../contracts/handler.ts'
import { asIMError, IMError, type IMErrorCode, type IMErrorContext } from '../errors.ts'
import { isPromise } from '../model/maybe-promise.ts'
import { isRefusalReason } from '../model/reason-code.ts'
import type { Closing, Outcome, Refusal } from '../model/outcome.ts'
import type { Lap, StepTimes } from './step-times.ts'

/** One handler in its place. */
export interface Step<C> {
  readonly name: string
  readonly handler: Handler<C>
  /** how long a promise it returned may stay pending */
  readonly timeoutMs: number
  /** what it is called when it throws, and when it stays pending for longer */
  readonly failureCode: IMErrorCode
  readonly timeoutCode: IMErrorCode
  /**
   * 'fail': a failure ends the chain. 'open': it is reported and the chain goes on. 'continue': so it is, and a refusal is one,
   * too, for steps behind the point where a message is stored
   */
  readonly onError: 'fail' | 'open' | 'continue'
  /** its name in errors; default: its name */
  readonly reportedAs?: string
  /** how long it takes */
  readonly times?: StepTimes
}

/** What the runner needs of an event. */
export interface Runnable {
  readonly event: string
  /** for the report of a failure */
  describe(): IMErrorContext
  /** it is part of the end itself, and runs after `stop` */
  readonly runsAtTheEnd?: boolean
  /** A step has outlived its time-out; `over` when that ends the chain. */
  abort(over: boolean): void
}

/** How a chain ended: undefined when every step let it pass. */
export type ChainResult = undefined | Refusal | Closing | IMError

export interface ChainRunnerOptions {
  readonly timers: Timers
  /** failures of steps whose chain goes on */
  readonly report: (error: IMError) => void
}

/** Runs chains. Never throws and its promises never reject: what a step does wrong comes back as a value. */
export class ChainRunner {
  readonly #timers: Timers
  readonly #report: (error: IMError) => void
  /** ends of the waits under way */
  readonly #waits = new Set<(reason: IMError) => void>()
  #stopped: IMError | undefined

  constructor(options: ChainRunnerOptions) {
    this.#timers = options.timers
    this.#report = options.report
  }

  /** The engine will wait no longer: chains that wait for a step end with `reason`, later ones before their first step. */
  stop(reason: IMError): void {
    this.#stopped = reason
    for (const end of this.#waits) end(reason)
    this.#waits.clear()
  }

  /** The steps one after the other. A promise only when a step returned one. */
  run<C extends Runnable>(steps: readonly Step<C>[], ctx: C): ChainResult | Promise<ChainResult> {
    return this.#run(steps, ctx, 0, steps[0]?.times?.begin())
  }

  #run<C extends Runnable>(steps: readonly Step<C>[], ctx: C, first: number, lap: Lap | undefined): ChainResult | Promise<ChainResult> {
    if (this.#stopped !== undefined && !ctx.runsAtTheEnd) return this.#stopped
    for (let index = first; index < steps.length; index++) {
      const step = steps[index]!
      let outcome: Outcome | Promise<Outcome>
      try {
        outcome = step.handler(ctx)
      } catch (thrown) {
        lap?.end(step.times)
        const failure = failureOf(thrown, step, ctx)
        if (step.onError === 'fail') return failure
        this.#report(failure)
        continue
      }
      if (outcome !== undefined && isPromise(outcome)) return this.#wait(steps, ctx, index, outcome, lap)
      lap?.end(step.times)
      if (outcome === undefined) continue
      const ended = this.#judge(outcome, step, ctx)
      if (ended !== undefined) return ended
    }
    return undefined
  }

  async #wait<C extends Runnable>(
    steps: readonly Step<C>[],
    ctx: C,
    index: number,
    pending: Promise<Outcome>,
    lap: Lap | undefined,
  ): Promise<ChainResult> {
    const step = steps[index]!
    let ended: ChainResult
    try {
      const outcome = await this.#withTimeout(pending, step, ctx)
      lap?.end(step.times)
      ended = this.#judge(outcome, step, ctx)
    } catch (thrown) {
      lap?.end(step.times)
      ended = failureOf(thrown, step, ctx)
      if (step.onError !== 'fail') {
        this.#report(ended)
        ended = undefined
      }
    }
    return ended ?? this.#run(steps, ctx, index + 1, lap)
  }

  #withTimeout<C extends Runnable>(pending: Promise<Outcome>, step: Step<C>, ctx: C): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const end = (reason: IMError): void => {
        ctx.abort(step.onError === 'fail')
        this.#timers.cancel(entry)
        reject(reason)
      }
      const entry = this.#timers.after(step.timeoutMs, () => {
        this.#waits.delete(end)
        end(new IMError(step.timeoutCode, { detail: `${step.timeoutMs} ms`, context: contextOf(step, ctx) }))
      })
      this.#waits.add(end)
      // After the time-out both do nothing: the promise is settled and the entry gone.
      pending.then(
        (outcome) => {
          this.#timers.cancel(entry)
          this.#waits.delete(end)
          resolve(outcome)
        },
        (reason: unknown) => {
          this.#timers.cancel(entry)
          this.#waits.delete(end)
          reject(failureOf(reason, step, ctx))
        },
      )
    })
  }

  /** What a step answered, once it is neither a promise nor a throw. */
  #judge<C extends Runnable>(outcome: Outcome, step: Step<C>, ctx: C): ChainResult {
    if (outcome === undefined) return undefined
    const { kind, reasonCode } = (outcome ?? {}) as Partial<Refusal | Closing>
    if ((kind !== 'refuse' && kind !== 'close') || !isRefusalReason(reasonCode)) {
      // Not TypeScript, or a cast: going on would let a message pass that a handler meant to stop.
      const failure = new IMError('IM_HANDLER_FAILED', {
        detail: 'it returned something else than refuse(), close() or nothing',
        context: contextOf(step, ctx),
      })
      if (step.onError === 'fail') return failure
      this.#report(failure)
      return undefined
    }
    if (step.onError !== 'continue') return outcome
    this.#report(new IMError('IM_HANDLER_FAILED', { detail: 'too late to refuse', context: contextOf(step, ctx) }))
    return undefined
  }
}

function failureOf<C extends Runnable>(thrown: unknown, step: Step<C>, ctx: C): IMError {
  return asIMError(thrown, step.failureCode, contextOf(step, ctx))
}

function contextOf<C extends Runnable>(step: Step<C>, ctx: C): IMErrorContext {
  return { ...ctx.describe(), event: ctx.event, step: step.reportedAs ?? step.name }
}
