import { asIMError, IMError, type IMErrorCode, type IMErrorContext } from '../../errors.ts'

/**
 * An error of the driver as it may be passed on. The driver hangs the command with its arguments on what Redis has refused:
 * a password, texts of users and payloads. Some answers of Redis quote arguments as well.
 */
export function withoutArguments(error: unknown): Error {
  if (!(error instanceof Error)) return new Error('the driver threw something that is no error')
  delete (error as { command?: unknown }).command
  const quote = /,? with args beginning with/.exec(error.message)
  if (quote === null) return error
  const shortened = new Error(error.message.slice(0, quote.index))
  shortened.name = error.name
  return shortened
}

/** What stands in the way, in words of this adapter: they hold nobody's texts, and may be shown. */
export class Obstacle extends Error {}

/** What went wrong with Redis, under the code of the contract that it went wrong for. */
export function redisFailure(code: IMErrorCode, error: unknown, context: IMErrorContext = {}): IMError {
  if (error instanceof IMError) return asIMError(error, code, context)
  if (error instanceof Obstacle) return new IMError(code, { detail: error.message, context })
  return new IMError(code, { detail: adviceOn(error), cause: withoutArguments(error), context })
}

/** Will trying again with the same user and password be answered the same? */
export function isDenied(error: unknown): boolean {
  return error instanceof Error && /^(NOAUTH|WRONGPASS|NOPERM|ERR invalid password|ERR AUTH)/.test(error.message)
}

/** Did a command fail because its connection did? Words of the driver. */
export function isLoss(error: unknown): boolean {
  return error instanceof Error && /^Connection is closed|isn't writeable|max retries per request|aborted due to connection close/.test(error.message)
}

function adviceOn(error: unknown): string {
  const text = error instanceof Error ? `${(error as NodeJS.ErrnoException).code ?? ''} ${error.message}` : ''
  if (isDenied(error)) return 'Redis refuses the user or the password, or lets them do too little'
  if (/ECONNREFUSED|ENOTFOUND|ENOENT|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH/.test(text)) return 'no Redis can be reached there'
  if (/timed? ?out/i.test(text)) return 'Redis did not answer in time'
  if (/ OOM /.test(` ${text}`)) return 'Redis has no memory left'
  if (/READONLY/.test(text)) return 'Redis is a replica'
  return 'Redis'
}
