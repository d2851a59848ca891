import { IMError, type IMErrorCode } from '../../errors.ts'

/** Names of the driver and of the system, and what a person can do about them. The first that matches counts. */
const known: readonly (readonly [pattern: RegExp, code: IMErrorCode, advice: string])[] = [
  [/LEVEL_LOCKED|already held by process|lock .*: (Resource temporarily unavailable|Permission denied)/i, 'IM_STORE_LOCKED', 'end the other process, or give this one a folder of its own'],
  [/LEVEL_CORRUPTION|Corruption:|(CURRENT|MANIFEST-\d+): No such file/i, 'IM_STORE_CORRUPT', 'restore the folder from a backup, or salvage what can be read with ClassicLevel.repair(path)'],
  [/ENOSPC|EDQUOT|EFBIG|No space left|quota exceeded|File too large/i, 'IM_STORE_FULL', 'make room on the disk; writing goes on by itself'],
  [/EACCES|EPERM|EROFS|Permission denied|Operation not permitted|Read-only file system/i, 'IM_STORE_DENIED', 'give the user this process runs as the right to read and write the folder'],
  [/ENOTDIR|Not a directory|EEXIST/i, 'IM_STORE_DENIED', 'name a folder, or a place where one can be made'],
]

/** What a failure of the driver means to a host. */
export function storageFailure(error: unknown, place: string): IMError {
  if (error instanceof IMError) return error
  const text = textOf(error)
  for (const [pattern, code, advice] of known) {
    if (pattern.test(text)) return new IMError(code, { detail: `${place}: ${advice}`, cause: error })
  }
  return new IMError('IM_STORE_UNAVAILABLE', { detail: place, cause: error })
}

/** Codes and messages of an error and of what caused it. */
function textOf(error: unknown): string {
  const parts: string[] = []
  for (let at = error; at instanceof Error && parts.length < 10; at = at.cause) {
    parts.push(String((at as NodeJS.ErrnoException).code ?? ''), at.message)
  }
  return parts.join(' ')
}
