import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { endOfRun, Store, type Conversation, type IncomingMessage } from '../../examples/chat/page/src/store.ts'
import { LOBBY } from '../../examples/chat/wire.ts'

const message = (messageSeq: number, fromUID = 'bob', clientMsgNo = `no-${messageSeq}`): IncomingMessage => ({
  channel: LOBBY,
  clientMsgNo,
  messageID: String(1000 + messageSeq),
  messageSeq,
  fromUID,
  text: `text ${messageSeq}`,
  timestampMs: messageSeq * 1000,
  version: 0,
  recalled: false,
})
const page = (first: number, last: number): IncomingMessage[] => Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => message(first + index))
const seqsOf = ({ messages }: Conversation): number[] => messages.map(({ messageSeq }) => messageSeq)

/** The page of ann with the lobby open and `loaded` in it. */
function opened(...loaded: readonly IncomingMessage[]): { store: Store; lobby: Conversation } {
  const store = new Store('ann')
  const lobby = store.conversation(LOBBY)
  store.addNewestPage(lobby, loaded)
  lobby.history = 'partial'
  return { store, lobby }
}

describe('a message', () => {
  test('that comes live, again, replayed and with the history is there once', () => {
    const { store, lobby } = opened(...page(1, 3))
    expect(store.receive(message(4))).toBe('new')
    expect(store.receive(message(4))).toBe('known')
    store.addPage(lobby, page(2, 5))
    expect(store.receive(message(2))).toBe('known')
    expect(seqsOf(lobby)).toEqual([1, 2, 3, 4, 5])
  })

  test("of one's own is the one that was typed, whether the answer or the history brings its number", () => {
    for (const bring of [
      (store: Store) => store.acknowledge({ clientMsgNo: 'typed', messageID: '1002', messageSeq: 2, reasonCode: 1 }),
      (store: Store, lobby: Conversation) => store.addPage(lobby, [message(1), message(2, 'ann', 'typed')]),
      (store: Store) => void store.receive(message(2, 'ann', 'typed')),
    ]) {
      const { store, lobby } = opened(message(1))
      store.addOwn(LOBBY, { clientMsgNo: 'typed', text: 'text 2', timestampMs: 0 })
      bring(store, lobby)
      bring(store, lobby)
      store.receive(message(2, 'ann', 'typed'))
      expect(lobby.messages.map(({ key, messageSeq, delivery }) => [key, messageSeq, delivery])).toEqual([['1001', 1, 'received'], ['typed', 2, 'sent']])
    }
  })

  test('with a gap on either side says so', () => {
    const { store, lobby } = opened(...page(10, 12))
    expect(store.receive(message(15))).toBe('gap')
    expect(store.receive(message(14))).toBe('gap')
    expect(endOfRun(lobby)).toBe(12)
    expect(store.receive(message(13))).toBe('new')
    expect(endOfRun(lobby)).toBe(15)
  })

  test('older than what is shown is left to the history, but for the one right above', () => {
    const { store, lobby } = opened(...page(100, 140))
    expect(store.receive(message(98))).toBe('older')
    expect(store.receive(message(99))).toBe('new')
    expect(seqsOf(lobby)[0]).toBe(99)
  })
})

describe('the newest page', () => {
  test('goes with what came before it when the two meet, and in place of it when they do not', () => {
    for (const [newest, expected] of [
      [page(13, 20), [...Array(11).keys()].map((index) => 10 + index)],
      [page(12, 20), [...Array(11).keys()].map((index) => 10 + index)],
      [page(14, 20), [14, 15, 16, 17, 18, 19, 20]],
    ] as const) {
      const store = new Store('ann')
      const lobby = store.conversation(LOBBY)
      for (const replayed of page(10, 12)) store.receive(replayed)
      store.addOwn(LOBBY, { clientMsgNo: 'typed', text: '', timestampMs: 0 })
      store.addNewestPage(lobby, newest)
      expect(seqsOf(lobby)).toEqual([...expected, 0])
    }
  })
})

describe('a change', () => {
  const recalled: IncomingMessage = { ...message(2), text: 'gone', version: 1, recalled: true }

  test('is shown once, and is not undone by a page that was asked for before', () => {
    const { store, lobby } = opened(...page(1, 3))
    store.revise(recalled)
    store.addPage(lobby, page(1, 3))
    store.revise({ ...message(2), text: 'late', version: 1 })
    expect(lobby.messages.map(({ text, recalled: isRecalled }) => [text, isRecalled])).toEqual([['text 1', false], ['gone', true], ['text 3', false]])
  })

  test('that came with a page is one, too', () => {
    const { store, lobby } = opened(...page(1, 3))
    store.addPage(lobby, [message(1), recalled])
    expect(lobby.messages[1]).toMatchObject({ text: 'gone', recalled: true })
  })

  test('takes what was recalled out of what is unread, on the page or not', () => {
    const { store, lobby } = opened(...page(1, 2))
    store.setStanding(lobby, { lastSeq: 5, readSeq: 1, unread: 4 })
    store.revise(recalled)
    store.revise(recalled)
    expect(store.unreadCount(lobby)).toBe(3)
    store.revise({ ...message(4), version: 1, recalled: true })
    expect(store.unreadCount(lobby)).toBe(2)
    store.revise({ ...message(1), version: 1, recalled: true })
    expect(store.unreadCount(lobby)).toBe(2)
  })
})

describe('what is unread', () => {
  test('is what the server counts and what came since, and nothing after it was read', () => {
    const { store, lobby } = opened()
    store.setStanding(lobby, { lastSeq: 10, readSeq: 4, unread: 5 }) // one was recalled
    expect(store.unreadCount(lobby)).toBe(5)
    store.receive(message(11))
    expect(store.unreadCount(lobby)).toBe(6)
    store.markRead(lobby, 11)
    expect(store.unreadCount(lobby)).toBe(0)
    store.setStanding(lobby, { lastSeq: 11, readSeq: 4, unread: 6 }) // the server has not heard of it yet
    expect(store.unreadCount(lobby)).toBe(0)
    store.receive(message(12))
    expect(store.unreadCount(lobby)).toBe(1)
  })
})

test('messages that arrive in any order, any number of times and in any way stand in theirs, each once', () => {
  const LAST = 30
  const arrivals = fc.array(
    fc.oneof(
      fc.record({ kind: fc.constant('live' as const), seq: fc.integer({ min: 1, max: LAST }) }),
      fc.record({ kind: fc.constant('page' as const), seq: fc.integer({ min: 1, max: LAST }), count: fc.integer({ min: 1, max: 10 }) }),
      fc.record({ kind: fc.constant('newest' as const), seq: fc.integer({ min: LAST - 10, max: LAST }) }),
    ),
    { maxLength: 40 },
  )
  fc.assert(
    fc.property(arrivals, (steps) => {
      const { store, lobby } = opened()
      for (const step of steps) {
        if (step.kind === 'live') store.receive(message(step.seq))
        else if (step.kind === 'page') store.addPage(lobby, page(step.seq, Math.min(LAST, step.seq + step.count)))
        else store.addNewestPage(lobby, page(step.seq, LAST))
        const seqs = seqsOf(lobby)
        expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b))
      }
      // Asked for what lies behind the first gap, as the page does, it has all of it.
      store.addPage(lobby, page(endOfRun(lobby) + 1, LAST))
      const first = seqsOf(lobby)[0] ?? 1
      expect(seqsOf(lobby)).toEqual(page(first, LAST).map(({ messageSeq }) => messageSeq))
    }),
  )
})
