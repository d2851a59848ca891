import type { ChannelDirectory } from '../contracts/channel-directory.ts'
import type { CursorStore } from '../contracts/cursor-store.ts'
import type { MessageStore } from '../contracts/message-store.ts'
import type { TokenStore } from '../contracts/token-store.ts'
import type { UserWrite } from '../contracts/user-write.ts'
import { IMError } from '../errors.ts'

/** What goes through the log. Everything else is a question, and answered by this node's own storage. */
const WRITES = {
  channels: ['putChannel', 'removeChannel', 'putMembers', 'removeMembers', 'addToList', 'removeFromList', 'setUserFlags'],
  cursors: ['advance', 'put', 'remove', 'hide'],
  tokens: ['putToken', 'removeToken'],
  messages: ['revise', 'truncate', 'discard'],
} as const

interface Parts {
  readonly channels: ChannelDirectory
  readonly cursors: CursorStore
  readonly tokens: TokenStore
  readonly messages: MessageStore
}

type Call<P extends keyof Parts> = (typeof WRITES)[P][number] & keyof Parts[P]

/** One write: part of the storage, method, arguments. */
export type StorageWrite = {
  readonly [P in keyof Parts]: {
    readonly [C in Call<P>]: {
      readonly part: P
      readonly call: C
      readonly args: NonNullable<Parts[P][C]> extends (...args: infer A) => unknown ? Readonly<A> : never
      /** of a `UserWrite`: it takes back what let the user's connections in, and they end with it and are told this */
      readonly endReason?: string
    }
  }[Call<P>]
}[keyof Parts]

const USER_WRITES: ReadonlySet<string> = new Set<UserWrite['call']>(['setUserFlags', 'putToken', 'removeToken'])

/** In front of every operation: another layout gets another number. */
const FORMAT = 1

/** JSON behind the number of the format; bytes as base64 under a name that nothing else has. */
const BYTES = '$bytes'

export function encodeWrite({ part, call, args, endReason }: StorageWrite): Uint8Array {
  const text = JSON.stringify([part, call, args, ...(endReason === undefined ? [] : [endReason])], function (this: Record<string, unknown>, name: string, value: unknown) {
    const raw = this[name] // a Buffer has turned itself into something else by now
    return raw instanceof Uint8Array ? { [BYTES]: Buffer.from(raw.buffer, raw.byteOffset, raw.length).toString('base64') } : value
  })
  return Buffer.concat([Buffer.of(FORMAT), Buffer.from(text)])
}

/** @throws IM_LOG_FORMAT, IM_LOG_CORRUPT */
export function decodeWrite(operation: Uint8Array): StorageWrite {
  if (operation[0] !== FORMAT) throw new IMError('IM_LOG_FORMAT', { detail: `writes of format ${operation[0]}` })
  const text = Buffer.from(operation.buffer, operation.byteOffset + 1, operation.length - 1).toString()
  let write: unknown
  try {
    write = JSON.parse(text, (_name, value: unknown) => {
      const bytes = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[BYTES] : undefined
      return typeof bytes === 'string' ? new Uint8Array(Buffer.from(bytes, 'base64')) : value
    })
  } catch {
    throw damaged()
  }
  if (!Array.isArray(write)) throw damaged()
  const [part, call, args, endReason] = write as unknown[]
  const calls: readonly string[] = typeof part === 'string' && Object.hasOwn(WRITES, part) ? WRITES[part as keyof Parts] : []
  if (typeof call !== 'string' || !calls.includes(call) || !Array.isArray(args)) throw new IMError('IM_LOG_FORMAT', { detail: 'a write of another kind' })
  // Absent in entries of those who knew nothing of it, and nobody's connections end with them.
  return { part, call, args, ...(typeof endReason === 'string' && USER_WRITES.has(call) && { endReason }) } as unknown as StorageWrite
}

function damaged(): IMError {
  return new IMError('IM_LOG_CORRUPT', { detail: 'a write cannot be read' })
}
