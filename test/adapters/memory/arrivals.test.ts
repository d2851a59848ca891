import { describe, expect, it } from 'vitest'
import { Arrivals } from '../../../src/adapters/memory/arrivals.ts'
import { HeldMessage } from '../../../src/adapters/memory/held-message.ts'
import { sampleMessage } from '../../../src/testing/index.ts'

const held = (number: number): HeldMessage => new HeldMessage(sampleMessage(number), Infinity)

describe('arrivals', () => {
  it.each([0, 1, 2])('lose nothing else when what came as number %i is removed twice', (index) => {
    const arrivals = new Arrivals()
    const messages = [held(1), held(2), held(3)]
    for (const message of messages) arrivals.add(message)
    const [removed] = messages.splice(index, 1) as [HeldMessage]
    arrivals.remove(removed)
    arrivals.remove(removed)
    const newest = held(4)
    arrivals.add(newest)
    for (const [leftCount, message] of [...messages, newest].entries()) {
      expect([arrivals.oldest, arrivals.count]).toEqual([message, 3 - leftCount])
      expect(arrivals.find(message.messageID)).toBe(message)
      arrivals.remove(message)
    }
    expect([arrivals.oldest, arrivals.count]).toEqual([undefined, 0])
    arrivals.remove(newest)
    expect(arrivals.count).toBe(0)
  })
})
