import { expect, test } from 'vitest'
import { Turn } from '../../src/events/turn.ts'
import type { Clock } from '../../src/contracts/clock.ts'

/** A clock that waits for nothing; the test says when deferred work runs. */
function heldClock() {
  const deferredWork: (() => void)[] = []
  const unused = (): never => {
    throw new Error('a turn waits for nothing')
  }
  const clock: Clock = { nowMs: unused, monotonicMs: () => 0, setTimer: unused, clearTimer: unused, defer: (run) => void deferredWork.push(run) }
  return { clock, deferredWork }
}

test('however often it is asked for, the phases run once, in order, and not before the turn', () => {
  const { clock, deferredWork } = heldClock()
  const ran: string[] = []
  const turn = new Turn(clock, [() => ran.push('users'), () => ran.push('channels'), () => ran.push('flush')])
  turn.request()
  turn.request()
  expect(deferredWork).toHaveLength(1)
  expect(ran).toEqual([])
  deferredWork[0]!()
  expect(ran).toEqual(['users', 'channels', 'flush'])
})

test('what a phase asks for while it runs happens in a turn of its own', () => {
  const { clock, deferredWork } = heldClock()
  const ran: string[] = []
  const turn: Turn = new Turn(clock, [
    () => ran.push('first'),
    () => {
      if (ran.length === 1) turn.request()
      ran.push('second')
    },
  ])
  turn.request()
  deferredWork.shift()!()
  expect(ran).toEqual(['first', 'second'])
  expect(deferredWork).toHaveLength(1)
  deferredWork.shift()!()
  expect(ran).toEqual(['first', 'second', 'first', 'second'])
  expect(deferredWork).toHaveLength(0)
})
