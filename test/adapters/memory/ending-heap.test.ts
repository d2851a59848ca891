import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { EndingHeap } from '../../../src/adapters/memory/ending-heap.ts'
import { HeldMessage } from '../../../src/adapters/memory/held-message.ts'
import { sampleMessage } from '../../../src/testing/index.ts'

const endingAt = (timestampMs: number): HeldMessage => new HeldMessage(sampleMessage(1, { timestampMs }), 1000)

describe('EndingHeap', () => {
  it('always has the message on top that ends first, whatever else has left it', () => {
    const anyTimes = fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 40, size: 'max' })
    const anyOrder = fc.infiniteStream(fc.nat())
    fc.assert(
      fc.property(anyTimes, anyOrder, (times, order) => {
        const heap = new EndingHeap()
        const inside = times.map(endingAt)
        for (const message of inside) heap.add(message)
        for (const index of order) {
          expect(heap.next?.endsAtMs).toBe(inside.length === 0 ? undefined : Math.min(...inside.map((message) => message.endsAtMs)))
          const [leaving] = inside.splice(index % Math.max(1, inside.length), 1)
          if (leaving === undefined) break
          heap.remove(leaving)
        }
      }),
      { numRuns: 300, seed: Number(process.env['FUZZ_SEED'] ?? 20_260_101) },
    )
  })

  it('is not harmed by removing what is not in it, or twice', () => {
    const heap = new EndingHeap()
    const [first, second] = [endingAt(1), endingAt(2)]
    heap.add(second)
    heap.remove(first)
    heap.add(first)
    heap.remove(first)
    heap.remove(first)
    expect(heap.next).toBe(second)
  })
})
