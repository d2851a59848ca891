import { AsyncLocalStorage } from 'node:async_hooks'
import type { Clock } from '../contracts/clock.ts'
import type { EventContexts, EventName } from '../contracts/handler.ts'
import type { Facts } from '../contracts/facts.ts'
import type { Message } from '../model/message.ts'

/** Messages whose depth is known by their ids, too: what comes back as a copy is found there. */
const MAX_KNOWN_IDS = 20_000

/**
 * Because of which message a plugin does what it does. The depth of a client's or the host's message is 0, that of a plugin's
 * message is one more than that of what it was sent because of. What is running now is followed over awaits and timers, and
 * only from the first handler or listener of a plugin on: an engine without plugins makes no `AsyncLocalStorage`.
 */
export class Causes {
  /** the depth of what a plugin would send now */
  #running: AsyncLocalStorage<number | undefined> | undefined
  /** of messages of plugins that have a depth at all */
  readonly #depths = new WeakMap<Message, number>()
  /** the same by message id, and by sender and `clientMsgNo`, oldest first: a log hands over copies, a refusal only numbers */
  readonly #depthsByID = new Map<string, number>()

  /** The depth that a message has which is sent now; undefined outside of any cause. */
  get current(): number | undefined {
    return this.#running?.getStore()
  }

  /** Call `action` because of something: what it sends has this depth. Undefined leaves the cause as it is. */
  because<A extends unknown[], R>(depth: number | undefined, action: (...args: A) => R, ...args: A): R {
    if (depth === undefined) return action(...args)
    return (this.#running ??= new AsyncLocalStorage()).run(depth, action, ...args)
  }

  /** A clock whose timers and turns belong to nobody: what set one off is not why everything behind it happens. */
  outside(clock: Clock): Clock {
    const out = <T>(action: () => T): T => (this.#running === undefined ? action() : this.#running.run(undefined, action))
    return {
      nowMs: () => clock.nowMs(),
      monotonicMs: () => clock.monotonicMs(),
      setTimer: (delayMs, fire) => out(() => clock.setTimer(delayMs, fire)),
      clearTimer: (timer) => clock.clearTimer(timer),
      defer: (run) => {
        if (this.#running === undefined) clock.defer(run)
        else out(() => clock.defer(run))
      },
    }
  }

  sent(message: Message, depth: number): void {
    this.#depths.set(message, depth)
    this.#know(message.messageID, depth)
    if (message.clientMsgNo !== '') this.#know(numberOf(message), depth)
  }

  depthOf(message: Message): number {
    return this.#depths.get(message) ?? this.#depthsByID.get(message.messageID) ?? 0
  }

  /** What is sent in a handler of this event has this depth; undefined when no message has led to it. */
  ofEvent(ctx: EventContexts[EventName]): number | undefined {
    switch (ctx.event) {
      case 'EventOnSend':
        return 1
      case 'EventRecvAck':
        return this.depthOf(ctx.message) + 1
      case 'EventChannelDistribute':
      case 'EventPushOnline':
        // Most engines never have a message with a depth, and the contexts collect their messages anew each time.
        return this.#depthsByID.size === 0 ? 1 : this.#deepest(ctx.messages) + 1
      default:
        return undefined
    }
  }

  /** The same for a listener of a fact. */
  ofFact(name: keyof Facts, fact: Facts[keyof Facts][0]): number | undefined {
    if ('messages' in fact) return this.#deepest(fact.messages) + 1
    if (name === 'messageRefused') return (this.#depthsByID.get(numberOf(fact as Facts['messageRefused'][0])) ?? 0) + 1
    if (name === 'messageRevised') return this.depthOf((fact as Facts['messageRevised'][0]).message) + 1
    if (name !== 'webhookGivenUp') return undefined
    const { events } = fact as Facts['webhookGivenUp'][0]
    return this.#deepest(events.flatMap((event) => (event.event === 'msg.notify' ? event.messages : []))) + 1
  }

  #deepest(messages: readonly Message[]): number {
    let depth = 0
    for (const message of messages) depth = Math.max(depth, this.depthOf(message))
    return depth
  }

  #know(id: string, depth: number): void {
    this.#depthsByID.delete(id) // so that the order is that of the last use
    this.#depthsByID.set(id, depth)
    if (this.#depthsByID.size <= MAX_KNOWN_IDS) return
    for (const oldest of this.#depthsByID.keys()) {
      this.#depthsByID.delete(oldest)
      return
    }
  }
}

/** No message id looks like that. */
function numberOf({ fromUID, clientMsgNo }: { readonly fromUID: string; readonly clientMsgNo: string }): string {
  return `${fromUID}\n${clientMsgNo}`
}
