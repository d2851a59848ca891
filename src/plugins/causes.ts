import { AsyncLocalStorage } from 'node:async_hooks'
import type { Clock } from '../contracts/clock.ts'
import type { EventContexts, EventName } from '../contracts/handler.ts'
import type { Facts } from '../contracts/facts.ts'
import type { Message } from '../model/message.ts'

/** Messages whose depth is known by their ids, too: what comes back as a copy is found there. */
const MAX_KNOWN_IDS = 20_000

/** What a plugin's code runs because of. */
export interface Cause {
  /** of what is sent now: one more than the deepest of the messages */
  readonly depth: number
  /** of the messages that have led here; ids, because whatever is opened meanwhile keeps them for as long as it lives */
  readonly messageIDs: readonly string[]
}

/** Messages without a depth: all of them are alike. */
const CLIENTS: Cause = { depth: 1, messageIDs: [] }

/**
 * Because of which message a plugin does what it does. The depth of a client's or the host's message is 0, that of a plugin's
 * message is one more than that of what it was sent because of. What is running now is followed over awaits and timers, and
 * only from the first handler or listener of a plugin on: an engine without plugins makes no `AsyncLocalStorage`.
 */
export class Causes {
  #running: AsyncLocalStorage<Cause | undefined> | undefined
  /** of messages of plugins that have a depth at all */
  readonly #depths = new WeakMap<Message, number>()
  /** the same by message id, and by sender and `clientMsgNo`, oldest first: a log hands over copies, a refusal only numbers */
  readonly #depthsByID = new Map<string, number>()

  get current(): Cause | undefined {
    return this.#running?.getStore()
  }

  /** Call `action` because of something. Undefined leaves the cause as it is. */
  because<A extends unknown[], R>(cause: Cause | undefined, action: (...args: A) => R, ...args: A): R {
    if (cause === undefined) return action(...args)
    return (this.#running ??= new AsyncLocalStorage()).run(cause, action, ...args)
  }

  /**
   * The depth of what is sent now, in answer to a message if one is named. Of a batch it is the one answered that counts: a
   * bot in a busy channel would otherwise count up with every answer of its own that comes in one batch with a client's
   * message. Beside that the deeper one counts: who answers one old message for ever answers itself all the same.
   */
  depthNow(replyTo: Message | undefined): number {
    const cause = this.current
    if (replyTo === undefined) return cause?.depth ?? 0
    const depth = this.depthOf(replyTo) + 1
    if (cause === undefined || cause.messageIDs.includes(replyTo.messageID)) return depth
    return Math.max(depth, cause.depth)
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

  /** Undefined when no message has led to this event. */
  ofEvent(ctx: EventContexts[EventName]): Cause | undefined {
    switch (ctx.event) {
      case 'EventOnSend':
        return CLIENTS
      case 'EventRecvAck':
        return this.#of([ctx.message])
      case 'EventChannelDistribute':
      case 'EventPushOnline':
        // Most engines never have a message with a depth, and the contexts collect their messages anew each time.
        return this.#depthsByID.size === 0 ? CLIENTS : this.#of(ctx.messages)
      default:
        return undefined
    }
  }

  /** The same for a fact. */
  ofFact(name: keyof Facts, fact: Facts[keyof Facts][0]): Cause | undefined {
    if ('messages' in fact) return this.#of(fact.messages)
    if (name === 'messageRevised') return this.#of([(fact as Facts['messageRevised'][0]).message])
    if (name === 'messageRefused') {
      const depth = this.#depthsByID.get(numberOf(fact as Facts['messageRefused'][0])) ?? 0
      return { depth: depth + 1, messageIDs: [] }
    }
    if (name !== 'webhookGivenUp') return undefined
    const { events } = fact as Facts['webhookGivenUp'][0]
    return this.#of(events.flatMap((event) => (event.event === 'msg.notify' ? event.messages : [])))
  }

  #of(messages: readonly Message[]): Cause {
    let depth = 0
    if (this.#depthsByID.size > 0) for (const message of messages) depth = Math.max(depth, this.depthOf(message))
    return depth === 0 ? CLIENTS : { depth: depth + 1, messageIDs: messages.map(({ messageID }) => messageID) }
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
