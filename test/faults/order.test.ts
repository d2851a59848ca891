import { describe, expect, it } from 'vitest'
import { ChannelType, memoryStorage, type MessageStore } from 'imengine'
import { seededRandom } from 'imengine/testing'
import { stage, storageWith } from '../support.ts'

const CROWD = { channelID: 'crowd', channelType: ChannelType.Group }
const SENDER_COUNT = 64
const MESSAGE_COUNT = 10_000

/** A pause that ends after 0 to 3 turns of the event loop: other work overtakes it, no time passes. */
async function randomTurns(random: { bytes(count: number): Uint8Array }): Promise<void> {
  for (let left = random.bytes(1)[0]! % 4; left > 0; left--) await new Promise((resolve) => setImmediate(resolve))
}

describe('order', () => {
  // P3
  it('64 senders, 10,000 messages, random delays in every pool: each receiver sees 1..10000 in order, none twice', async () => {
    const random = seededRandom(64)
    const storage = memoryStorage()
    const append: MessageStore['append'] = async (batches) => {
      await randomTurns(random)
      return storage.messages.append(batches)
    }
    const { engine, connect } = await stage({ storage: storageWith(storage, { append }), plaintext: 'allow' })
    engine.use('EventOnSend', () => randomTurns(random), { name: 'delaySend' })
    engine.use('EventChannelDistribute', () => randomTurns(random), { name: 'delayChannel', after: 'store' })
    engine.use('EventPushOnline', () => randomTurns(random), { name: 'delayPush' })
    const uids = Array.from({ length: SENDER_COUNT }, (_, index) => `u${index}`)
    await engine.channels.create(CROWD, { subscribers: [...uids, 'watcher'] })
    const senders = await Promise.all(uids.map(async (uid) => (await connect(uid, { plaintext: true, autoAck: false })).client))
    const { client: watcher } = await connect('watcher')

    let next = 0
    const ownSeqs = new Map<string, number[]>()
    const sendAll = async (uid: string, sender: (typeof senders)[number]): Promise<void> => {
      const seqs: number[] = []
      ownSeqs.set(uid, seqs)
      while (next < MESSAGE_COUNT) {
        // A window of 8, so that arrival order within one connection is put to the test as well.
        const window = Array.from({ length: Math.min(8, MESSAGE_COUNT - next) }, () => sender.send({ ...CROWD, payload: String(next++) }))
        for (const answer of await Promise.all(window)) {
          expect(answer.reasonCode).toBe(1)
          seqs.push(answer.messageSeq)
        }
      }
    }
    await Promise.all(senders.map((sender, index) => sendAll(uids[index]!, sender)))
    await engine.close() // drains: everything acknowledged has been delivered

    const all = Array.from({ length: MESSAGE_COUNT }, (_, index) => index + 1)
    expect(watcher.messages.map((message) => message.messageSeq)).toEqual(all)
    for (const [uid, seqs] of ownSeqs) expect(seqs, uid).toEqual([...seqs].sort((a, b) => a - b))
    for (const [index, sender] of senders.entries()) {
      const own = new Set(ownSeqs.get(uids[index]!))
      expect(sender.messages.map((message) => message.messageSeq), uids[index]).toEqual(all.filter((seq) => !own.has(seq)))
    }
  }, 120_000)
})
