import type { AppendBatch, AppendResult, MessageStore } from 'imengine'
import { endsOfRecords, MessageRecords, prefixedBytes, writePrefixed } from '../../../src/contracts/message-records.ts'

/** The same store, given every message as bytes, as from a log; whoever asks for a message itself gets an error. */
export function asRecords(store: MessageStore): MessageStore {
  const append: MessageStore['append'] = async (batches, position) => {
    const results = await store.append(batches.map(recordsOf), position)
    return results.map((each) => each.map(({ status, messageID, messageSeq }): AppendResult => ({ status, messageID, messageSeq })))
  }
  return new Proxy(store, {
    get: (target, name) => {
      if (name === 'append') return append
      const value: unknown = Reflect.get(target, name)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

function recordsOf({ key, messages }: AppendBatch): AppendBatch {
  const lengths = messages.map(prefixedBytes)
  const before = 7 // somewhere in an entry
  const bytes = Buffer.alloc(before + lengths.reduce((sum, each) => sum + each, 0) + 5, 0xee)
  let end = before
  messages.forEach((message, index) => (end = writePrefixed(bytes, end, message, lengths[index]!)))
  const records = new MessageRecords({ ...key }, bytes, before, endsOfRecords(bytes, before, end, messages.length)!)
  return {
    key,
    get messages(): never {
      throw new Error('the store has the messages as bytes')
    },
    records,
  }
}
