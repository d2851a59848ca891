import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Wait } from '../../src/handlers/wait.ts'
import type { WaitSignal } from '../../src/contracts/abort-group.ts'

type Step = { readonly do: 'add' | 'remove'; readonly listener: number } | { readonly do: 'abort'; readonly reason: string }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom('add' as const, 'remove' as const), listener: fc.integer({ min: 0, max: 3 }) }),
  fc.record({ do: fc.constant('abort' as const), reason: fc.constantFrom('late', 'closed') }),
)

/** What listeners hear, and what the signal says, when all that is done to it. */
function walk(signal: WaitSignal, abort: (reason: string) => void, steps: readonly Step[]): unknown[] {
  const heard: unknown[] = []
  const listeners = [0, 1, 2, 3].map((listener) => () => {
    heard.push([listener, signal.aborted, signal.reason])
    if (listener === 1) signal.removeEventListener('abort', listeners[2]!)
  })
  for (const each of steps) {
    if (each.do === 'abort') abort(each.reason)
    else if (each.do === 'add') signal.addEventListener('abort', listeners[each.listener]!, { once: true })
    else signal.removeEventListener('abort', listeners[each.listener]!)
    heard.push([signal.aborted, signal.reason])
  }
  return heard
}

describe('a wait', () => {
  it('is given up as an AbortSignal is', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const wait = new Wait()
        const controller = new AbortController()
        expect(walk(wait, (reason) => wait.abort(reason), steps)).toEqual(walk(controller.signal, (reason) => controller.abort(reason), steps))
      }),
    )
  })

  // What the DOM standard says. Node's AbortSignal tells some of them, and others not.
  it('tells nobody who comes while others are told', () => {
    const wait = new Wait()
    const heard: string[] = []
    wait.addEventListener('abort', () => {
      heard.push('first')
      wait.addEventListener('abort', () => heard.push('late'))
    })
    wait.addEventListener('abort', () => heard.push('second'))
    wait.abort('late')
    expect(heard).toEqual(['first', 'second'])
  })

  it('goes on telling the others when one of them throws, which is told as what nobody has caught', () => {
    const thrown: (() => void)[] = []
    vi.stubGlobal('queueMicrotask', (task: () => void) => thrown.push(task))
    onTestFinished(() => void vi.unstubAllGlobals())
    const wait = new Wait()
    let isTold = false
    wait.addEventListener('abort', () => {
      throw new Error('careless')
    })
    wait.addEventListener('abort', () => (isTold = true))
    wait.abort('late')

    expect(isTold).toBe(true)
    expect(thrown).toHaveLength(1)
    expect(thrown[0]).toThrow('careless')
  })
})
