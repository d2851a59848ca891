import { IMError, type IMErrorCode } from '../../errors.ts'
import { CHANNEL_LOST } from './schema.ts'

/** SQLSTATEs and codes of the system by how they begin, and what a person can do about them. The first that matches counts. */
const known: readonly (readonly [pattern: RegExp, code: IMErrorCode, advice: string])[] = [
  [/^28/, 'IM_STORE_DENIED', 'the server refuses this user or password'],
  [/^3D000/, 'IM_STORE_DENIED', 'there is no such database; create it first'],
  [/^42501/, 'IM_STORE_DENIED', 'grant the role what docs/postgres.md lists'],
  [/^(53100|53400|58030)/, 'IM_STORE_FULL', 'the server has no room for it'],
  [/^XX00[12]/, 'IM_STORE_CORRUPT', 'the server says that a file of it is damaged; restore a backup'],
  [/^(42P01|42703|42883|3F000)/, 'IM_STORE_FORMAT', 'the tables are not those that open() has made'],
  [/^25006/, 'IM_STORE_UNAVAILABLE', 'the server is read-only, as a standby is'],
  [/^53300/, 'IM_STORE_UNAVAILABLE', 'the server has no connection left'],
  [/^57014/, 'IM_STORE_UNAVAILABLE', 'the statement took too long'],
  [/^57P/, 'IM_STORE_UNAVAILABLE', 'the server is starting or shutting down'],
  [new RegExp(`^${CHANNEL_LOST}`), 'IM_STORE_UNAVAILABLE', 'the database has been set back; the next call sees it as it is'],
]

/** What a failure of the driver means to a host. Its text stays in `cause`: it may quote what was sent. */
export function storageFailure(error: unknown): IMError {
  if (error instanceof IMError) return error
  const sqlState = sqlStateOf(error)
  if (sqlState === '23514' && (error as { constraint?: unknown }).constraint === 'channel_is_full') {
    return new IMError('IM_STORE_FULL', { detail: 'the channel has given out its last number', cause: error })
  }
  for (const [pattern, code, advice] of known) {
    if (sqlState !== undefined && pattern.test(sqlState)) return new IMError(code, { detail: advice, cause: error })
  }
  return new IMError('IM_STORE_UNAVAILABLE', { detail: 'PostgreSQL', cause: error })
}

/** Five characters from the server; undefined when it is not the server that speaks. */
export function sqlStateOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && (error as { severity?: unknown }).severity !== undefined ? code : undefined
}

/** The server has answered, and the connection can go on being used. */
export function isAnswer(error: unknown): boolean {
  const sqlState = sqlStateOf(error)
  return sqlState !== undefined && !/^(08|57P|XX|58)/.test(sqlState)
}
