import type { Message } from 'imengine'
import type { PromiseName } from './history.ts'
import { channelName } from './ledger.ts'
import type { Planted } from './node.ts'
import type { Topology } from './plan.ts'

/** A change of one source: exactly this text, which has to be there. */
export interface Patch {
  readonly path: string
  readonly from: string
  readonly to: string
}

/** A mistake made on purpose, in the engine or in something that it relies on. The simulation has to find it. */
export interface Defect {
  readonly name: string
  /** by which check it is found: any of these */
  readonly found: readonly PromiseName[]
  readonly topology: Topology
  readonly patches?: readonly Patch[]
  readonly planted?: () => Planted
}

export const DEFECTS: readonly Defect[] = [
  {
    name: 'a store says that a message is durable before it is',
    found: ['P1'],
    topology: 'single',
    planted: () => ({
      storage: (storage) => {
        const lastSeqs = new Map<string, number>()
        const { messages } = storage
        return {
          ...storage,
          messages: {
            ...messages,
            append: async (batches) => {
              const answers = []
              for (const { key, messages: given } of batches) {
                const name = channelName(key)
                let lastSeq = lastSeqs.get(name) ?? (await messages.lastSeq(key))
                answers.push(given.map(({ messageID }: Message) => ({ status: 'stored' as const, messageID, messageSeq: ++lastSeq })))
                lastSeqs.set(name, lastSeq)
              }
              setImmediate(() => void (async () => messages.append(batches))().catch(() => undefined))
              return answers
            },
          },
        }
      },
    }),
  },
  {
    name: 'a replay leaves out every third message',
    found: ['P1', 'P7'],
    topology: 'single',
    patches: [
      {
        path: 'src/services/offline-replay.ts',
        from: 'else if (conn.replay(message)) {',
        to: 'else if (messageSeq % 3 === 0 || conn.replay(message)) {',
      },
    ],
  },
  {
    name: 'a store passes over a number',
    found: ['P2'],
    topology: 'single',
    patches: [{ path: 'src/adapters/memory/channel-log.ts', from: 'message.messageSeq = ++this.#lastSeq', to: 'message.messageSeq = this.#lastSeq += this.#lastSeq % 5 === 4 ? 2 : 1' }],
  },
  {
    name: 'a store gives a number twice',
    found: ['P2'],
    topology: 'single',
    patches: [{ path: 'src/adapters/memory/channel-log.ts', from: 'message.messageSeq = ++this.#lastSeq', to: 'message.messageSeq = this.#lastSeq % 5 === 4 && this.#headIndex++ === 0 ? this.#lastSeq : ++this.#lastSeq' }],
  },
  {
    name: 'a queue hands out the newest first',
    found: ['P3'],
    topology: 'single',
    patches: [{ path: 'src/events/keyed-queue.ts', from: 'const batch = lane.waiting\n', to: 'const batch = lane.waiting.reverse()\n' }],
  },
  {
    name: 'live messages do not wait for the replay',
    found: ['P3'],
    topology: 'single',
    patches: [{ path: 'src/connection/replay-gate.ts', from: 'this.#holdBack(channel, messageSeq)\n    return false', to: 'return true' }],
  },
  {
    name: 'who has left a group goes on getting its messages for a while',
    found: ['P3'],
    topology: 'single',
    patches: [{ path: 'src/services/subscribers.ts', from: 'this.#lists.delete(channelKeyString(key))', to: '' }],
  },
  {
    name: 'pushes from node to node overtake each other',
    found: ['P3'],
    topology: 'shared',
    planted: () => ({
      peerPush: (peerPush, time) => {
        let count = 0
        return {
          start: (host) => peerPush.start(host),
          // Confirmed, and made when the next ones have been made.
          push: (nodeID, request, signal) => {
            if (++count % 3 !== 0) return peerPush.push(nodeID, request, signal)
            time.after(400, () => void (async () => peerPush.push(nodeID, request, new AbortController().signal))().catch(() => undefined))
          },
          kick: (request, signal) => peerPush.kick(request, signal),
          close: () => peerPush.close(),
        }
      },
    }),
  },
  {
    name: 'a store forgets repeats',
    found: ['P4'],
    topology: 'single',
    patches: [{ path: 'src/adapters/memory/channel-log.ts', from: 'if (earlier !== undefined) return earlier', to: 'if (earlier !== undefined && this.#lastSeq - earlier.messageSeq < 3) return earlier' }],
  },
  {
    name: 'a repeat is answered with another number',
    found: ['P4', 'P1'],
    topology: 'single',
    patches: [{ path: 'src/handlers/channel/distribute-item.ts', from: 'this.origin.settle(ReasonCode.Success, messageID, messageSeq)', to: 'this.origin.settle(ReasonCode.Success, messageID, this.original === undefined ? messageSeq : messageSeq + 1)' }],
  },
  {
    name: 'a failure is answered twice',
    found: ['P5'],
    topology: 'single',
    patches: [{ path: 'src/handlers/user/on-send.ts', from: 'this.settled = true\n    sendSendack(', to: 'this.settled = true\n    if (reasonCode === ReasonCode.SystemError) sendSendack(this.conn, this.frame, this, reasonCode, messageID, messageSeq)\n    sendSendack(' }],
  },
  {
    name: 'a handler that throws leaves its SEND without an answer',
    found: ['P5'],
    topology: 'single',
    patches: [{ path: 'src/handlers/user/on-send.ts', from: "this.settle(reasonOf(result), '0', 0)", to: '' }],
  },
  {
    name: 'a socket loses what it has taken',
    found: ['P5', 'P3', 'P6', 'P7'],
    topology: 'single',
    planted: () => {
      let count = 0
      return {
        socket: (socket) =>
          Object.defineProperties({ ...socket }, {
            bufferedBytes: { get: () => socket.bufferedBytes },
            send: { value: (bytes: Uint8Array) => (++count % 11 === 0 ? true : socket.send(bytes)) },
          }),
      }
    },
  },
  {
    name: 'PING waits behind SENDs',
    found: ['P6'],
    topology: 'single',
    patches: [{ path: 'src/pipeline.ts', from: 'this.#users.submitSign(connection.connectionID, new PingEvent', to: 'this.#users.submitSend(connection.uid, new PingEvent' }],
  },
  {
    name: 'a store that fails throws past everybody',
    found: ['P6'],
    topology: 'single',
    patches: [{ path: 'src/services/deliveries.ts', from: 'for (const [name, delivery] of moved) this.#hasMoved(name, delivery)\n', to: 'if (!this.#isClosing) throw error\n' }],
  },
  {
    name: 'queues have no bound',
    found: ['P7'],
    topology: 'single',
    patches: [{ path: 'src/events/keyed-queue.ts', from: 'lane.count >= options.maxEventsPerKey', to: 'false' }],
  },
  {
    name: 'nobody is told of what a late store keeps from being delivered',
    found: ['P7'],
    topology: 'single',
    patches: [{ path: 'src/handlers/channel/distribute.ts', from: "facts.emit('undelivered', { key: ctx.key, messages: stored, nodeID: undefined, uid: undefined })", to: '' }],
  },
  {
    name: 'what is to be kept nowhere is stored',
    found: ['P1'],
    topology: 'single',
    patches: [{ path: 'src/handlers/channel/distribute.ts', from: "item.stage === 'waiting' && !item.message.noPersist", to: "item.stage === 'waiting'" }],
  },
  {
    name: 'commands are not replayed',
    found: ['P1'],
    topology: 'single',
    patches: [{ path: 'src/services/conversation-keys.ts', from: 'options.withCommands === true', to: 'false' }],
  },
  {
    name: 'a message that was edited is sent again as it was',
    found: ['P1'],
    topology: 'single',
    patches: [
      { path: 'src/connection/unacked.ts', from: 'if (entry !== undefined) entry.message = message', to: 'void entry, message' },
      { path: 'src/connection/connection.ts', from: 'const current = this.#host.current(message)', to: 'const current = message' },
    ],
  },
  {
    name: 'a message that was recalled is sent again',
    found: ['P1'],
    topology: 'single',
    patches: [
      { path: 'src/handlers/pusher/notice.ts', from: 'else target.settleRecv(message.messageID)', to: '' },
      { path: 'src/connection/connection.ts', from: 'const current = this.#host.current(message)', to: 'const current = message' },
    ],
  },
  {
    name: 'what a handler refuses is sent all the same',
    found: ['P5'],
    topology: 'single',
    patches: [{ path: 'src/events/run-chain.ts', from: 'if (ended !== undefined) return ended', to: '' }],
  },
  {
    name: 'what a handler has changed is stored as it came',
    found: ['P1'],
    topology: 'single',
    patches: [{ path: 'src/handlers/user/on-send.ts', from: 'payload: ctx.payload,\n      timestampMs', to: 'payload: ctx.frame.payload,\n      timestampMs' }],
  },
  {
    name: 'a timer outlives its engine',
    found: ['P8'],
    topology: 'single',
    patches: [{ path: 'src/services/sweeps.ts', from: 'this.#options.clock.clearTimer(this.#timer)', to: '' }],
  },
  {
    name: 'an engine closes without making positions durable',
    found: ['P8'],
    topology: 'single',
    patches: [
      { path: 'src/engine.ts', from: 'await this.#limited(this.#attempt(\'IM_STORE_UNAVAILABLE\', () => this.#storage.cursors.flush()))', to: '' },
      { path: 'src/services/deliveries.ts', from: 'await this.#options.cursors.flush()', to: '' },
    ],
  },
  {
    name: 'a clock forgets timers',
    found: ['P5', 'P7', 'P8'],
    topology: 'single',
    planted: () => {
      let count = 0
      return {
        clock: (clock) => ({
          nowMs: () => clock.nowMs(),
          monotonicMs: () => clock.monotonicMs(),
          setTimer: (delayMs, fire) => (++count % 40 === 0 ? {} : clock.setTimer(delayMs, fire)),
          clearTimer: (timer) => clock.clearTimer(timer),
          defer: (run) => clock.defer(run),
        }),
      }
    },
  },
]
