import type { EventContexts, EventName, Handler } from '../contracts/handler.ts'
import { badOption } from '../errors.ts'
import type { Step } from './run-chain.ts'

/** An event's steps as the engine ships them. */
export interface BuiltInChain {
  readonly steps: readonly Step<never>[]
  /** where a host's handler goes that names no place: before this step; undefined puts it last */
  readonly defaultBefore: string | undefined
  /** behind this step a failure is reported and the chain goes on: what has happened cannot be refused any more */
  readonly pointOfNoReturn: string | undefined
}

/** Where a host's handler goes, and how it is watched. */
export interface UseOptions {
  /** put it before the step of this name */
  readonly before?: string
  /** put it behind the step of this name, and behind what was put there earlier */
  readonly after?: string
  /** its name in `engine.steps` and in errors; default: the function's own */
  readonly name?: string
  /** how long a promise it returns may stay pending, in milliseconds; default `stepTimeoutMs` */
  readonly timeoutMs?: number
}

type AnyStep = Step<never>

/** The chains of one engine: built-in steps and the host's handlers among them. Changes concern events that start later. */
export class ChainRegistry {
  readonly #chains = new Map<EventName, { steps: readonly AnyStep[]; readonly builtIn: BuiltInChain }>()
  readonly #stepTimeoutMs: number

  constructor(builtIn: Readonly<Record<EventName, BuiltInChain>>, stepTimeoutMs: number) {
    this.#stepTimeoutMs = stepTimeoutMs
    for (const [event, chain] of Object.entries(builtIn)) {
      this.#chains.set(event as EventName, { steps: chain.steps, builtIn: chain })
    }
  }

  /** The steps that an event which starts now will run. The array never changes. */
  current<C>(event: EventName): readonly Step<C>[] {
    // The registry keeps handlers of all contexts in one map; `use` is where event and context are matched.
    return this.#chain(event).steps as unknown as readonly Step<C>[]
  }

  names(event: EventName): string[] {
    return this.#chain(event).steps.map((step) => step.name)
  }

  /** @returns a function that takes the handler out again */
  use<E extends EventName>(event: E, handler: Handler<EventContexts[E]>, options: UseOptions = {}): () => void {
    const chain = this.#chain(event)
    const step = this.#stepOf(event, handler, options)
    const index = this.#indexFor(event, options)
    chain.steps = [...chain.steps.slice(0, index), step, ...chain.steps.slice(index)]
    return () => {
      chain.steps = chain.steps.filter((other) => other !== step)
    }
  }

  /** @returns a function that puts the old step back */
  replace<E extends EventName>(event: E, stepName: string, handler: Handler<EventContexts[E]>): () => void {
    if (typeof handler !== 'function') badOption('the handler', 'a function', handler)
    const chain = this.#chain(event)
    const old = chain.steps[this.#find(event, stepName, 'stepName')]!
    const step: AnyStep = { ...old, failureCode: 'IM_HANDLER_FAILED', timeoutCode: 'IM_HANDLER_TIMEOUT', handler: handler }
    chain.steps = chain.steps.map((other) => (other === old ? step : other))
    return () => {
      chain.steps = chain.steps.map((other) => (other === step ? old : other))
    }
  }

  #stepOf<E extends EventName>(event: E, handler: Handler<EventContexts[E]>, options: UseOptions): AnyStep {
    if (typeof handler !== 'function') badOption('the handler', 'a function', handler)
    const { name = handler.name, timeoutMs = this.#stepTimeoutMs } = options
    if (name === '') badOption('options.name', 'given for a function without a name', name)
    if (this.names(event).includes(name)) badOption('options.name', `another one: ${event} has a step of that name`, name)
    if (!Number.isFinite(timeoutMs) || timeoutMs <= 0) badOption('options.timeoutMs', 'a positive number of milliseconds', timeoutMs)
    const { pointOfNoReturn } = this.#chain(event).builtIn
    const isLate = pointOfNoReturn !== undefined && this.#indexFor(event, options) > this.#find(event, pointOfNoReturn, 'step')
    return { name, handler: handler, timeoutMs, failureCode: 'IM_HANDLER_FAILED', timeoutCode: 'IM_HANDLER_TIMEOUT', onError: isLate ? 'continue' : 'fail' }
  }

  #indexFor(event: EventName, { before, after }: UseOptions): number {
    const { steps, builtIn } = this.#chain(event)
    if (before !== undefined && after !== undefined) badOption('options', '{ before } or { after }, not both', { before, after })
    if (before !== undefined) return this.#find(event, before, 'options.before')
    if (after !== undefined) {
      let index = this.#find(event, after, 'options.after') + 1
      // Behind the host's own that stand there already, so that handlers run in the order they were added.
      while (index < steps.length && !builtIn.steps.some((step) => step.name === steps[index]!.name)) index++
      return index
    }
    return builtIn.defaultBefore === undefined ? steps.length : this.#find(event, builtIn.defaultBefore, 'step')
  }

  #find(event: EventName, name: string, option: string): number {
    const index = this.#chain(event).steps.findIndex((step) => step.name === name)
    if (index < 0) badOption(option, `a step of ${event} (${this.names(event).join(', ')})`, name)
    return index
  }

  #chain(event: EventName): { steps: readonly AnyStep[]; readonly builtIn: BuiltInChain } {
    const chain = this.#chains.get(event)
    if (chain === undefined) badOption('event', [...this.#chains.keys()].join(' | '), event)
    return chain
  }
}
