import assert from 'node:assert/strict'
import { allowAnyToken, ChannelType, IMEngine } from 'imengine'
import { connectTestClient, FakeClock } from 'imengine/testing'

/** A test of an engine without a network and without waiting: a minute passes in a millisecond. */
export async function start() {
  // #region redelivery
  const clock = new FakeClock()
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock })
  await engine.start()
  const { client: ann } = await connectTestClient(engine, { uid: 'ann' })
  const { client: bob } = await connectTestClient(engine, { uid: 'bob', autoAck: false })

  const sendack = await ann.send({ channelID: 'bob', channelType: ChannelType.Person, payload: 'hello' })
  assert.equal(sendack.messageSeq, 1)
  assert.equal((await bob.nextRecv()).text, 'hello')

  await clock.advance(60_100) // redeliverAfterMs, and one tick of the timer wheel
  const again = await bob.nextRecv()
  assert.equal(again.messageID, sendack.messageID)

  bob.ack(again)
  await clock.advance(600_000)
  assert.equal(bob.messages.length, 2) // acknowledged: it does not come a third time

  await engine.close()
  assert.equal(clock.pendingTimerCount, 0) // nothing is left behind
  // #endregion
  return { messages: bob.messages, close: async (): Promise<void> => {} }
}
