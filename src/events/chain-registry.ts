import type { Clock } from '../contracts/clock.ts'
import type { EventContexts, EventName, Handler } from '../contracts/handler.ts'
import { badOption } from '../errors.ts'
import type { LatencyHistogram } from '../model/latency.ts'
import type { Step } from './run-chain.ts'
import { StepTimes } from './step-times.ts'

/** An event's steps as the engine ships them. */
export interface BuiltInChain {
  readonly steps: readonly Step<never>[]
  /** where a host's handler goes that names no place: before this step; undefined puts it last */
  readonly defaultBefore: string | undefined
  /** behind this step a failure is reported and the chain goes on: what has happened cannot be refused any more */
  readonly pointOfNoReturn: string | undefined
}

/** Where a host's handler goes, and how it is watched. */
export interface UseOptions extends WatchOptions {
  /** put it before the step of this name */
  readonly before?: string
  /** put it behind the step of this name, and behind what was put there earlier */
  readonly after?: string
  /** its name in `engine.steps` and in errors; default: the function's own */
  readonly name?: string
  /** among the handlers in one place the higher one runs first, equal ones in the order they were added; default 0 */
  readonly priority?: number
}

/** How a handler is watched. */
export interface WatchOptions {
  /** how long a promise it returns may stay pending, in milliseconds; default `stepTimeoutMs`, or that of the replaced step */
  readonly timeoutMs?: number
  /**
   * What a throw, a time-out or rubbish means. 'fail-closed' (default): the event ends, and the client is told. 'fail-open': it
   * is reported by `error`, and the chain goes on. A refusal is no error and counts under both. Behind the point of no return
   * (`docs/handlers.md`) every failure is reported and the chain goes on.
   */
  readonly onError?: 'fail-closed' | 'fail-open'
}

type AnyStep = Step<never>

/** Which events are timed step by step: one in `every` of each kind; none for 0. */
export interface StepTiming {
  readonly every: number
  readonly clock: Pick<Clock, 'monotonicMs'>
}

/** One name in a chain, and what runs under it: the step itself, or the newest replacement that has not been taken back. */
interface Slot {
  readonly base: AnyStep
  replacements: readonly AnyStep[]
  /** of a host's handler; undefined for a built-in step */
  readonly place: string | undefined
  readonly priority: number
}

interface Chain {
  readonly builtIn: BuiltInChain
  slots: readonly Slot[]
  /** what runs, made anew with every change */
  steps: readonly AnyStep[]
  isAsShipped: boolean
}

/** The chains of one engine: built-in steps and the host's handlers among them. Changes concern events that start later. */
export class ChainRegistry {
  readonly #chains = new Map<EventName, Chain>()
  readonly #stepTimeoutMs: number
  readonly #timing: StepTiming | undefined

  /** @param timing  undefined: no step is timed */
  constructor(builtIn: Readonly<Record<EventName, BuiltInChain>>, stepTimeoutMs: number, timing?: StepTiming) {
    this.#stepTimeoutMs = stepTimeoutMs
    this.#timing = timing
    for (const [event, chain] of Object.entries(builtIn)) {
      const slots = chain.steps.map((base): Slot => ({ base: this.#timed(base), replacements: [], place: undefined, priority: 0 }))
      this.#chains.set(event as EventName, { builtIn: chain, slots, steps: slots.map(({ base }) => base), isAsShipped: true })
    }
  }

  /** How long the steps took that are in a chain now, whatever runs under their names. */
  latencies(): { readonly event: EventName; readonly step: string; readonly latency: LatencyHistogram }[] {
    return [...this.#chains].flatMap(([event, { slots }]) =>
      slots.flatMap(({ base: { name, times } }) => (times === undefined ? [] : [{ event, step: name, latency: times.latencies.snapshot() }])),
    )
  }

  /** The steps that an event which starts now will run. The array never changes. */
  current<C>(event: EventName): readonly Step<C>[] {
    // The registry keeps handlers of all contexts in one map; `use` is where event and context are matched.
    return this.#chain(event).steps as unknown as readonly Step<C>[]
  }

  /** Are the steps those that the engine ships, without a host's among them or in their place? */
  isAsShipped(event: EventName): boolean {
    return this.#chain(event).isAsShipped
  }

  names(event: EventName): string[] {
    return this.#chain(event).steps.map((step) => step.name)
  }

  /** @returns a function that takes the handler out again */
  use<E extends EventName>(event: E, handler: Handler<EventContexts[E]>, options: UseOptions = {}): () => void {
    const chain = this.#chain(event)
    const base = this.#stepOf(event, handler, options)
    const { priority = 0 } = options
    if (!Number.isFinite(priority)) badOption('options.priority', 'a finite number', priority)
    const { index: last, place } = this.#placeFor(event, options)
    // In front of the first one there that has to run later; where there is none, behind all that stand there.
    const first = chain.slots.findIndex((other) => other.place === place && other.priority < priority)
    const index = first < 0 ? last : first
    const slot: Slot = { base, replacements: [], place, priority }
    put(chain, [...chain.slots.slice(0, index), slot, ...chain.slots.slice(index)])
    return () => put(chain, chain.slots.filter((other) => other !== slot))
  }

  /**
   * @param reportedAs  what errors call it; default: the step's name
   * @returns a function that takes the handler back: what runs then is the newest of those that were put there and stayed
   */
  replace<E extends EventName>(
    event: E,
    stepName: string,
    handler: Handler<EventContexts[E]>,
    options: WatchOptions = {},
    reportedAs?: string,
  ): () => void {
    if (typeof handler !== 'function') badOption('the handler', 'a function', handler)
    const chain = this.#chain(event)
    const slot = chain.slots[this.#find(event, stepName, 'stepName')]!
    const { base } = slot
    const { timeoutMs = base.timeoutMs, onError } = options
    checkWatch(timeoutMs, onError)
    const policy = onError === undefined || base.onError === 'continue' ? base.onError : POLICIES[onError]
    const step: AnyStep = { ...base, ...HOSTS, handler, timeoutMs, onError: policy, ...(reportedAs !== undefined && { reportedAs }) }
    slot.replacements = [...slot.replacements, step]
    put(chain, chain.slots)
    return () => {
      slot.replacements = slot.replacements.filter((other) => other !== step)
      put(chain, chain.slots)
    }
  }

  #stepOf<E extends EventName>(event: E, handler: Handler<EventContexts[E]>, options: UseOptions): AnyStep {
    if (typeof handler !== 'function') badOption('the handler', 'a function', handler)
    const { name = handler.name, timeoutMs = this.#stepTimeoutMs, onError = 'fail-closed' } = options
    if (name === '') badOption('options.name', 'given for a function without a name', name)
    if (this.names(event).includes(name)) badOption('options.name', `another one: ${event} has a step of that name`, name)
    checkWatch(timeoutMs, onError)
    const { pointOfNoReturn } = this.#chain(event).builtIn
    const isLate = pointOfNoReturn !== undefined && this.#placeFor(event, options).index > this.#find(event, pointOfNoReturn, 'step')
    return this.#timed({ name, handler, timeoutMs, ...HOSTS, onError: isLate ? 'continue' : POLICIES[onError] })
  }

  #timed(step: AnyStep): AnyStep {
    return this.#timing === undefined ? step : { ...step, times: new StepTimes(this.#timing.every, this.#timing.clock) }
  }

  /**
   * Where a handler goes that has nobody behind it there, and what that place is called: between two steps of the engine it
   * is one place however it is named; beside a handler of the host it is a place of its own.
   */
  #placeFor(event: EventName, { before, after }: UseOptions): { readonly index: number; readonly place: string } {
    const { slots, builtIn } = this.#chain(event)
    if (before !== undefined && after !== undefined) badOption('options', '{ before } or { after }, not both', { before, after })
    const anchor = after ?? before ?? builtIn.defaultBefore
    if (anchor === undefined) return { index: slots.length, place: 'last' }
    const option = after !== undefined ? 'options.after' : before !== undefined ? 'options.before' : 'step'
    let index = this.#find(event, anchor, option)
    const isBuiltIn = slots[index]!.place === undefined
    if (after !== undefined) {
      index++
      // Behind the host's own that stand there already, so that handlers run in the order they were added.
      while (index < slots.length && slots[index]!.place !== undefined) index++
    }
    if (!isBuiltIn) return { index, place: after !== undefined ? `after ${anchor}` : `before ${anchor}` }
    return { index, place: index === slots.length ? 'last' : `in front of ${slots[index]!.base.name}` }
  }

  #find(event: EventName, name: string, option: string): number {
    const index = this.#chain(event).slots.findIndex((slot) => slot.base.name === name)
    if (index < 0) badOption(option, `a step of ${event} (${this.names(event).join(', ')})`, name)
    return index
  }

  #chain(event: EventName): Chain {
    const chain = this.#chains.get(event)
    if (chain === undefined) badOption('event', [...this.#chains.keys()].join(' | '), event)
    return chain
  }
}

const HOSTS = { failureCode: 'IM_HANDLER_FAILED', timeoutCode: 'IM_HANDLER_TIMEOUT' } as const

const POLICIES = { 'fail-closed': 'fail', 'fail-open': 'open' } as const

function put(chain: Chain, slots: readonly Slot[]): void {
  chain.slots = slots
  chain.steps = slots.map(({ base, replacements }) => replacements.at(-1) ?? base)
  chain.isAsShipped = slots.every(({ place, replacements }) => place === undefined && replacements.length === 0)
}

function checkWatch(timeoutMs: unknown, onError: unknown): void {
  if (typeof timeoutMs !== 'number' || !Number.isFinite(timeoutMs) || timeoutMs <= 0) {
    badOption('options.timeoutMs', 'a positive number of milliseconds', timeoutMs)
  }
  if (onError !== undefined && onError !== 'fail-closed' && onError !== 'fail-open') {
    badOption('options.onError', "'fail-closed' or 'fail-open'", onError)
  }
}
