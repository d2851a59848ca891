import { MemoryLevel } from 'memory-level'
import type { AnyLevel, Operations } from '../../../src/adapters/level/database.ts'
import type { Message } from '../../../src/model/message.ts'
import { FaultyLevel } from './open.ts'

export interface WrittenBatch {
  readonly operations: Operations
  readonly sync: boolean | undefined
}

/** A database in memory that keeps the batches it was asked to write, in order, and can fail after it has written. */
export class WatchedLevel extends FaultyLevel {
  readonly batches: WrittenBatch[] = []
  /** writes from now on happen, and fail with this nevertheless */
  lateFailure: Error | undefined
  /** keys that a batch does not take, but throws at once */
  refuses: (key: Buffer) => boolean = () => false

  constructor(inner: AnyLevel = new MemoryLevel<Buffer, Buffer>({ keyEncoding: 'buffer', valueEncoding: 'buffer' })) {
    super(inner)
  }

  override batch(): ReturnType<AnyLevel['batch']> {
    const batch = super.batch()
    const operations: Operations = []
    return {
      put: (key, value, options) => {
        if (this.refuses(key)) throw new Error('no such key')
        operations.push(key, value)
        return batch.put(key, value, options)
      },
      del: (key, options) => {
        operations.push(key, undefined)
        return batch.del(key, options)
      },
      write: async (options) => {
        this.batches.push({ operations, sync: options?.sync })
        await batch.write(options)
        if (this.lateFailure !== undefined) throw this.lateFailure
      },
    }
  }
}

/** What classic-level says when the disk is full. */
export function diskFull(): Error {
  return Object.assign(new Error('IO error: /x/000005.log: No space left on device'), { code: 'LEVEL_IO_ERROR' })
}

export const GROUP = 2

export function group(channelID: string): { channelID: string; channelType: number } {
  return { channelID, channelType: GROUP }
}

let lastID = 1_000n

/** A message that has not been stored; its id is a new one. */
export function message(channelID: string, clientMsgNo: string, payload: string | Uint8Array = clientMsgNo): Message {
  return {
    messageID: String(++lastID),
    messageSeq: 0,
    clientMsgNo,
    fromUID: 'ann',
    ...group(channelID),
    payload: typeof payload === 'string' ? Buffer.from(payload) : payload,
    timestampMs: 1_700_000_000_000,
    expireSec: 0,
    topic: '',
    setting: 0,
    noPersist: false,
    redDot: true,
    syncOnce: false,
  }
}
