import assert from 'node:assert/strict'
import type { Logger } from '../../contracts/logger.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import type { ContractCase, ContractOptions, Opened } from './contract-case.ts'

export interface LoggerContractOptions<O extends Opened<Logger>> extends ContractOptions<Logger, O> {
  /** The messages logged so far, oldest first. Without it only what the calls do to the caller is checked. */
  messages?(opened: O): MaybePromise<readonly string[]>
}

/** The promises of a Logger whose level lets everything through. */
export function loggerContract<O extends Opened<Logger>>(options: LoggerContractOptions<O>): ContractCase[] {
  const { open, messages } = options
  return scenarios.map(([name, check]) => ({
    name,
    run: async () => {
      const opened = await open()
      try {
        const expected = check(opened.subject)
        if (messages !== undefined) assert.deepEqual(await messages(opened), expected)
      } finally {
        await opened.close?.()
      }
    },
  }))
}

/** Returns the messages that must have come out. */
type Check = (logger: Logger) => string[]

const scenarios: readonly (readonly [name: string, check: Check])[] = [
  [
    'every level takes fields and a message, in order',
    (logger) => {
      logger.debug({ connectionID: 'c1' }, 'one')
      logger.info({}, 'two')
      logger.warn({ uid: 'ünal', count: 3 }, 'three')
      logger.error({ error: new Error('broken') }, 'four')
      return ['one', 'two', 'three', 'four']
    },
  ],
  [
    'no field makes it throw',
    (logger) => {
      const circular: Record<string, unknown> = {}
      circular['self'] = circular
      logger.info({ circular }, 'circular')
      logger.info({ nothing: undefined, none: null, nan: Number.NaN, list: [1, [2]] }, 'odd values')
      logger.info({ run: () => {}, symbol: Symbol('s'), date: new Date(Number.NaN) }, 'odder values')
      logger.info({ level: 'x', msg: 'y', message: 'z', time: 0 }, 'names of its own')
      return ['circular', 'odd values', 'odder values', 'names of its own']
    },
  ],
  [
    'the fields are left as they were',
    (logger) => {
      const fields = Object.freeze({ uid: 'ann', nested: Object.freeze({ seq: 1 }) })
      logger.error(fields, 'frozen')
      assert.deepEqual(fields, { uid: 'ann', nested: { seq: 1 } })
      return ['frozen']
    },
  ],
]
