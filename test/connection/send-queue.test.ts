import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { SendQueue } from '../../src/connection/send-queue.ts'
import type { Socket } from '../../src/contracts/socket.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text)

/** A socket that keeps what it is told in order. */
function setUp(options: { framing?: 'stream' | 'message'; send?: (chunk: string) => boolean | void } = {}) {
  const calls: string[] = []
  const state = { bufferedBytes: 0, askedCount: 0 }
  const socket: Socket = {
    ...(options.framing === undefined ? {} : { framing: options.framing }),
    send: (chunk) => {
      const text = Buffer.from(chunk).toString()
      calls.push(text)
      return options.send?.(text)
    },
    close: (code, reason) => void calls.push(`close ${code} ${reason}`),
    destroy: () => void calls.push('destroy'),
    pause: () => void calls.push('pause'),
    resume: () => void calls.push('resume'),
    cork: () => void calls.push('cork'),
    uncork: () => void calls.push('uncork'),
    get bufferedBytes() {
      state.askedCount++
      return state.bufferedBytes
    },
  }
  const broken = vi.fn()
  return { queue: new SendQueue(socket, broken), socket, calls, state, broken }
}

const isWord = (call: string): boolean => !['cork', 'uncork'].includes(call)

describe('a flush', () => {
  test('of a byte stream is one write of all frames, in order', () => {
    const { queue, calls } = setUp()
    for (const frame of ['a', 'bb', 'ccc']) queue.push(bytes(frame))
    expect(calls).toEqual([])
    queue.flush()
    expect(calls).toEqual(['abbccc'])
  })

  test('of a transport with messages is one send per frame, within one pair of cork and uncork', () => {
    const { queue, calls } = setUp({ framing: 'message' })
    for (const frame of ['a', 'bb', 'ccc']) queue.push(bytes(frame))
    queue.flush()
    expect(calls).toEqual(['cork', 'a', 'bb', 'ccc', 'uncork'])
  })

  test('with nothing to write touches nothing', () => {
    const { queue, calls, state } = setUp({ framing: 'message' })
    queue.flush()
    expect(calls).toEqual([])
    expect(state.askedCount).toBe(0)
  })

  test('hands over memory that the queue does not write to again', () => {
    const kept: Uint8Array[] = []
    const { queue, socket } = setUp()
    Object.assign(socket, { send: (chunk: Uint8Array) => void kept.push(chunk) })
    queue.push(bytes('first'))
    queue.push(bytes('second'))
    queue.flush()
    queue.push(bytes('third'))
    queue.flush()
    expect(kept.map((chunk) => Buffer.from(chunk).toString())).toEqual(['firstsecond', 'third'])
  })
})

/** Puts a frame into the queue in one of the ways there are. */
const WAYS = {
  push: (queue: SendQueue, text: string) => queue.push(bytes(text)),
  reserve: (queue: SendQueue, text: string) => {
    const at = queue.reserve(text.length)
    queue.room.set(bytes(text), at)
  },
  pushAll: (queue: SendQueue, text: string) => queue.pushAll(bytes(text), [text.length]),
}

describe('frames of all kinds', () => {
  test('leave in the order they came, whole, whatever the transport takes, in messages of their own where it has them', () => {
    const step = fc.oneof(
      fc.record({ way: fc.constantFrom('push', 'reserve', 'pushAll' as const), length: fc.nat({ max: 700 }) }),
      fc.record({ way: fc.constant('pairs' as const), length: fc.nat({ max: 400 }) }),
      fc.record({ way: fc.constant('flush' as const), length: fc.constant(0) }),
      fc.record({ way: fc.constant('drained' as const), length: fc.constant(0) }),
    )
    fc.assert(
      fc.property(fc.constantFrom('stream', 'message', 'frames' as const), fc.array(step, { maxLength: 60 }), fc.array(fc.boolean(), { maxLength: 30 }), (kind, steps, answers) => {
        const sent: string[] = []
        let index = 0
        const { queue, socket } = setUp({ framing: kind === 'stream' ? 'stream' : 'message', send: (text) => (sent.push(text), answers[index++]) })
        if (kind === 'frames') {
          socket.sendFrames = (frames, ends) => ends.forEach((end, at) => void sent.push(Buffer.from(frames.subarray(ends[at - 1] ?? 0, end)).toString()))
        }
        const frames: string[] = []
        const frame = (length: number): string => {
          const text = `<${frames.length}${'x'.repeat(length)}>`
          frames.push(text)
          return text
        }
        for (const { way, length } of steps) {
          if (way === 'flush') queue.flush()
          else if (way === 'drained') queue.drained()
          else if (way !== 'pairs') WAYS[way](queue, frame(length))
          else {
            const [a, b] = [frame(length), frame(0)]
            queue.pushAll(bytes(a + b), [a.length, a.length + b.length])
          }
          expect(sent.join('').length + queue.bytes).toBe(frames.join('').length)
        }
        for (let round = 0; round < answers.length + 2; round++) queue.drained()
        if (kind === 'stream') expect(sent.join('')).toBe(frames.join(''))
        else expect(sent).toEqual(frames)
        expect(queue.bytes).toBe(0)
      }),
      { seed: 11, numRuns: 500 },
    )
  })

  test('that are laid out in place stay as they are once they have been handed over', () => {
    const kept: Uint8Array[] = []
    const { queue, socket } = setUp()
    Object.assign(socket, { send: (chunk: Uint8Array) => void kept.push(chunk) })
    for (const text of ['first', 'second']) WAYS.reserve(queue, text)
    queue.flush()
    for (const text of ['third', 'fourth']) WAYS.reserve(queue, text)
    queue.flush()
    expect(kept.map((chunk) => Buffer.from(chunk).toString())).toEqual(['firstsecond', 'thirdfourth'])
  })

  test('one alone is handed over without a copy', () => {
    const kept: Uint8Array[] = []
    const { queue, socket } = setUp()
    Object.assign(socket, { send: (chunk: Uint8Array) => void kept.push(chunk) })
    const frame = bytes('shared by many')
    queue.push(frame)
    queue.flush()
    queue.pushAll(frame, [6, frame.length])
    queue.flush()
    expect(kept.map((chunk) => chunk === frame)).toEqual([true, true])
  })
})

describe.each(['stream', 'message'] as const)('a transport (%s) that wants no more', (framing) => {
  test('gets nothing until it has drained, then everything that waits, in order', () => {
    let full = true
    const { queue, calls } = setUp({ framing, send: () => !full })
    queue.push(bytes('1'))
    queue.flush()
    queue.push(bytes('2'))
    queue.flush()
    queue.push(bytes('3'))
    queue.flush()
    expect(calls.filter(isWord)).toEqual(['1'])
    expect(queue.flushableBytes).toBe(0)
    full = false
    queue.drained()
    expect(calls.filter(isWord).join('')).toBe('123')
    queue.push(bytes('4'))
    queue.flush()
    expect(calls.filter(isWord).join('')).toBe('1234')
  })

  test('is sent to again after "true" or nothing', () => {
    const answers = [undefined, true]
    const { queue, calls } = setUp({ framing, send: () => answers.shift() })
    for (const frame of ['1', '2', '3']) {
      queue.push(bytes(frame))
      queue.flush()
    }
    expect(calls.filter(isWord)).toEqual(['1', '2', '3'])
  })
})

describe('frames that wait in the middle of a flush', () => {
  test('stay in order when the transport wants no more after some of them', () => {
    let left = 2
    const { queue, calls } = setUp({ framing: 'message', send: () => --left > 0 })
    for (const frame of ['1', '2', '3', '4']) queue.push(bytes(frame))
    queue.flush()
    expect(calls).toEqual(['cork', '1', '2', 'uncork'])
    expect(queue.bytes).toBe(2)
    queue.push(bytes('5'))
    left = 10
    queue.drained()
    expect(calls.filter(isWord)).toEqual(['1', '2', '3', '4', '5'])
    expect(queue.bytes).toBe(0)
  })

  test('stay ahead of what is pushed from inside send, of which nothing is lost', () => {
    const { queue, calls } = setUp({
      framing: 'message',
      send: (text) => {
        if (text !== '1') return true
        queue.push(bytes('pushed from inside'))
        return false
      },
    })
    for (const frame of ['1', '2']) queue.push(bytes(frame))
    queue.flush()
    queue.drained()
    expect(calls.filter(isWord)).toEqual(['1', '2', 'pushed from inside'])
    expect(queue.bytes).toBe(0)
  })
})

test.each(['stream', 'message'] as const)('a transport (%s) from within whose send more is pushed, flushed and ended gets everything in order, then the end', (framing) => {
  const { queue, calls } = setUp({
    framing,
    send: (text) => {
      if (!text.startsWith('a')) return
      queue.push(bytes('caused'))
      queue.flush()
      queue.end(1000, 'bye')
    },
  })
  for (const frame of ['a', 'b', 'c']) queue.push(bytes(frame))
  queue.flush()
  expect(calls.filter(isWord).join(' ').replace('abc', 'a b c')).toBe('a b c caused close 1000 bye')
  expect(queue.bytes).toBe(0)
})

describe('the count of bytes', () => {
  test('holds what waits here and what the transport says it holds', () => {
    const { queue, state } = setUp({ send: () => false })
    queue.push(bytes('12345'))
    expect(queue.bytes).toBe(5)
    expect(queue.flushableBytes).toBe(5)
    state.bufferedBytes = 5
    queue.flush()
    queue.push(bytes('678'))
    expect(queue.bytes).toBe(8)
    expect(queue.flushableBytes).toBe(0)
    state.bufferedBytes = 0
    queue.drained()
    expect(queue.bytes).toBe(0)
  })

  test('asks the transport once per flush, and again before it calls a peer slow', () => {
    const { queue, state } = setUp()
    queue.push(bytes('12345'))
    state.bufferedBytes = 5
    queue.flush()
    expect(state.askedCount).toBe(1)
    expect(queue.isBeyond(5)).toBe(false)
    expect(state.askedCount).toBe(1)
    expect(queue.isBeyond(4)).toBe(true)
    state.bufferedBytes = 1 // the peer has read meanwhile
    expect(queue.isBeyond(4)).toBe(false)
    expect(queue.bytes).toBe(1)
  })

  test('is exact whatever frames come and however much the transport takes', () => {
    const room = [3, 1, 0, 2, 5, 0, 1]
    let free = 0
    const { queue, calls } = setUp({ framing: 'message', send: () => --free > 0 })
    let pushed = ''
    for (let round = 0; round < 7; round++) {
      for (const frame of [`${round}a`, `${round}b`]) {
        queue.push(bytes(frame))
        pushed += frame
      }
      free = room[round]!
      queue.drained()
      const sent = calls.filter(isWord).join('')
      expect(pushed.startsWith(sent)).toBe(true)
      expect(queue.bytes).toBe(pushed.length - sent.length)
    }
  })
})

describe('the end', () => {
  test('closes at once when nothing waits, and takes nothing more', () => {
    const { queue, calls } = setUp()
    queue.end(1000, 'bye')
    expect(calls).toEqual(['close 1000 bye'])
    expect(queue.isEnding).toBe(true)
    queue.push(bytes('late'))
    queue.flush()
    queue.end(1002, 'again')
    expect(calls).toEqual(['close 1000 bye'])
    expect(queue.bytes).toBe(0)
  })

  test('closes behind what waits', () => {
    let full = true
    const { queue, calls } = setUp({ send: () => !full })
    queue.push(bytes('1'))
    queue.flush()
    queue.push(bytes('2'))
    queue.end(1000, 'bye')
    expect(calls).toEqual(['1'])
    full = false
    queue.drained()
    expect(calls).toEqual(['1', '2', 'close 1000 bye'])
  })

  test('by destroy throws away what waits, also behind an end that is waiting or has not been confirmed', () => {
    for (const endsFirst of [false, true]) {
      for (const waits of [false, true]) {
        const { queue, calls } = setUp({ send: () => false })
        if (waits) {
          queue.push(bytes('1'))
          queue.flush()
          queue.push(bytes('2'))
        }
        if (endsFirst) queue.end(1000, 'bye')
        queue.destroy('over')
        queue.drained()
        queue.flush()
        expect(calls.filter((call) => !call.startsWith('close'))).toEqual(waits ? ['1', 'destroy'] : ['destroy'])
        expect(calls.at(-1)).toBe('destroy')
      }
    }
  })

  test('by destroy of a socket that has no such method closes it', () => {
    const { queue, socket, calls } = setUp()
    Object.assign(socket, { destroy: undefined })
    queue.destroy('over')
    expect(calls).toEqual(['close 1001 over'])
  })
})

describe('a socket that throws', () => {
  test.each<[string, (queue: SendQueue) => void]>([
    ['send', (queue) => queue.flush()],
    ['cork', (queue) => queue.flush()],
    ['uncork', (queue) => queue.flush()],
    ['close', (queue) => { queue.flush(); queue.end(1000, 'bye') }],
    ['pause', (queue) => queue.pause()],
    ['resume', (queue) => queue.resume()],
  ])('from %s is told as broken, and nothing is thrown', (method, act) => {
    const { queue, socket, broken } = setUp({ framing: 'message' })
    Object.assign(socket, { [method]: () => { throw new Error('broken') } })
    queue.push(bytes('1'))
    expect(() => act(queue)).not.toThrow()
    expect(broken).toHaveBeenCalledTimes(1)
  })

  test('from destroy is nobody\'s trouble', () => {
    const { queue, socket } = setUp()
    Object.assign(socket, { destroy: () => { throw new Error('broken') } })
    expect(() => queue.destroy('over')).not.toThrow()
  })
})

test.each(['stream', 'message'] as const)('what waits for a transport (%s) that wants no more is not copied once more for each frame', (framing) => {
  const { queue } = setUp({ framing, send: () => false })
  queue.push(bytes('first'))
  queue.flush()
  const allocate = vi.spyOn(Buffer, 'allocUnsafe')
  const frame = new Uint8Array(100)
  for (let index = 0; index < 20_000; index++) queue.push(frame)
  const allocated = allocate.mock.calls.reduce((sum, [byteCount]) => sum + byteCount, 0)
  allocate.mockRestore()
  expect(queue.bytes).toBe(2_000_000)
  expect(allocated).toBeLessThan(10 * queue.bytes)
})
