import { expect, test } from 'vitest'
import { Causes, type Cause } from '../../src/plugins/causes.ts'
import { systemClock } from '../../src/services/system.ts'

const of = (depth: number): Cause => ({ depth, messageIDs: [] })

test('what is running is because of something over awaits, and nothing else is', async () => {
  const causes = new Causes()
  expect(causes.current).toBeUndefined()
  const seen = await causes.because(of(3), async () => {
    const before = causes.current?.depth
    await new Promise((resolve) => setImmediate(resolve))
    return [before, causes.current?.depth, causes.because(undefined, () => causes.current?.depth), causes.because(of(1), () => causes.current?.depth)]
  })
  expect(seen).toEqual([3, 3, 3, 1])
  expect(causes.current).toBeUndefined()
})

test('timers and turns of the clock outside of causes have none, whoever has set them off', async () => {
  const causes = new Causes()
  const clock = causes.outside(systemClock())
  const seen = await causes.because(of(3), () =>
    Promise.all([
      new Promise((resolve) => clock.defer(() => resolve(causes.current))),
      new Promise((resolve) => clock.setTimer(0, () => resolve(causes.current))),
    ]),
  )
  expect(seen).toEqual([undefined, undefined])
})
