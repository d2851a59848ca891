import { expect, test } from 'vitest'
import { stage, TEAM } from '../support.ts'

const textOf = ({ fromUID, text }: { readonly fromUID: string; readonly text: string }): string => `${fromUID}: ${text}`

// With encryption each message is sealed for each receiver; plain connections share the bytes of a whole batch.
test.each([true, false])('who has sent some of what is pushed together gets the rest of it, and nothing of their own (plaintext: %s)', async (plaintext) => {
  const { clock, connect } = await stage({ plaintext: 'allow' })
  const [ann, bob, cat] = (await Promise.all(['ann', 'bob', 'cat'].map((uid) => connect(uid, { plaintext })))).map(({ client }) => client)
  const sent = [ann!.send({ ...TEAM, payload: '1' }), bob!.send({ ...TEAM, payload: '2' }), ann!.send({ ...TEAM, payload: '3' })]
  await clock.settle()
  expect((await Promise.all(sent)).every(({ reasonCode }) => reasonCode === 1)).toBe(true)
  const all = cat!.messages.map(textOf)
  expect([...all].sort()).toEqual(['ann: 1', 'ann: 3', 'bob: 2'])
  expect(ann!.messages.map(textOf)).toEqual(all.filter((text) => !text.startsWith('ann')))
  expect(bob!.messages.map(textOf)).toEqual(all.filter((text) => !text.startsWith('bob')))
})
