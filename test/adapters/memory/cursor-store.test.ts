import { describe, expect, it } from 'vitest'
import { memoryCursorStore } from '../../../src/adapters/memory/index.ts'
import { isPromise } from '../../../src/model/maybe-promise.ts'

const ROOM = { channelID: 'room', channelType: 2 }

describe('memoryCursorStore', () => {
  it('answers with plain values, never with promises', () => {
    const store = memoryCursorStore()
    const answers = [
      store.advance([{ uid: 'ann', key: ROOM, readSeq: 1 }]),
      store.put([{ uid: 'ann', key: ROOM, readSeq: 1 }]),
      store.cursor('ann', ROOM),
      store.cursors('ann', [ROOM]),
      store.hide('ann', ROOM, [1]),
      store.hidden('ann', ROOM, 0, 1),
      store.remove(ROOM, ['ann']),
      store.flush(),
    ]
    expect(answers.filter(isPromise)).toEqual([])
  })

  it('names what is wrong with a seq, and has then changed nothing', async () => {
    const store = memoryCursorStore()
    const updates = [{ uid: 'ann', key: ROOM, readSeq: 1 }, { uid: 'ann', key: ROOM, joinSeq: -1 }]
    expect(() => store.advance(updates)).toThrow(/joinSeq must be an integer from 0, got -1/)
    expect(() => store.put(updates)).toThrow(/joinSeq must be an integer from 0, got -1/)
    expect(() => store.hide('ann', ROOM, [1, 1.5])).toThrow(/hidden seq must be an integer from 0, got 1.5/)
    expect(() => store.hidden('ann', ROOM, -1, 5)).toThrow(/afterSeq must be an integer from 0, got -1/)
    expect((await store.cursor('ann', ROOM)).readSeq).toBe(0)
    expect(await store.hidden('ann', ROOM, 0, 5)).toEqual([])
  })
})
