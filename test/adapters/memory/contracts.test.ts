import { describe, it } from 'vitest'
import { IMEngine } from '../../../src/index.ts'
import {
  allowAnyToken,
  memoryChannelDirectory,
  memoryCursorStore,
  memoryMessageStore,
  memoryOutbox,
  memoryPeerHub,
  memoryPresence,
  memoryReplicatorHub,
  memoryStorage,
  memoryTokenStore,
  staticTokenVerifier,
} from '../../../src/adapters/memory/index.ts'
import {
  channelDirectoryContract,
  cursorStoreContract,
  FakeClock,
  messageStoreContract,
  outboxContract,
  peerPushContract,
  presenceContract,
  replicatorContract,
  tokenStoreContract,
  tokenVerifierContract,
  type ContractCase,
} from '../../../src/testing/index.ts'

function run(name: string, cases: readonly ContractCase[]): void {
  describe(name, () => {
    for (const contractCase of cases) it(contractCase.name, contractCase.run)
  })
}

// A second life of memory is the same object: what the suites say of restarts holds as long as the process does.
const sameObject = { reopen: <O>(opened: O): O => opened }

run('memoryMessageStore', messageStoreContract({ open: () => ({ subject: memoryMessageStore() }), ...sameObject }))
run(
  'memoryMessageStore at the smallest bounds the suite allows',
  messageStoreContract({ open: () => ({ subject: memoryMessageStore({ maxMessagesPerChannel: 1000, maxMessages: 10_000 }) }) }),
)
run('memoryChannelDirectory', channelDirectoryContract({ open: () => ({ subject: memoryChannelDirectory() }), ...sameObject }))
run('memoryCursorStore', cursorStoreContract({ open: () => ({ subject: memoryCursorStore() }), ...sameObject }))
run('memoryTokenStore', tokenStoreContract({ open: () => ({ subject: memoryTokenStore() }), ...sameObject }))
run('memoryOutbox', outboxContract({ open: () => ({ subject: memoryOutbox() }), ...sameObject }))
run('memoryStorage messages', messageStoreContract({ open: () => ({ subject: memoryStorage().messages }) }))

run(
  'memoryPresence',
  presenceContract({
    open: () => {
      const clock = new FakeClock()
      return { subject: memoryPresence({ nowMs: () => clock.monotonicMs() }), clock }
    },
    advance: ({ clock }, ms) => clock.advance(ms),
  }),
)

run(
  'staticTokenVerifier',
  tokenVerifierContract({
    open: () => ({
      subject: staticTokenVerifier({
        ann: 'ann-secret',
        bob: [{ token: 'bob-phone', deviceLevel: 1 }, { token: 'bob-web' }],
        ünal: 'şifre-👩‍👩‍👧',
      }),
    }),
    accepted: [
      { uid: 'ann', token: 'ann-secret', deviceLevel: 0 },
      { uid: 'bob', token: 'bob-phone', deviceLevel: 1 },
      { uid: 'bob', token: 'bob-web', deviceLevel: 0 },
      { uid: 'ünal', token: 'şifre-👩‍👩‍👧', deviceLevel: 0 },
    ],
  }),
)
run(
  'staticTokenVerifier of a memoryTokenStore',
  tokenVerifierContract({
    open: async () => {
      const tokens = memoryTokenStore()
      const engine = new IMEngine({ tokenVerifier: allowAnyToken(), storage: { ...memoryStorage(), tokens } })
      await engine.users.setToken('ann', { deviceFlag: 0, token: 'ann-secret' })
      await engine.users.setToken('bob', { deviceFlag: 0, deviceLevel: 1, token: 'bob-phone' })
      await engine.users.setToken('ünal', { deviceFlag: 0, token: 'şifre-👩‍👩‍👧' })
      return { subject: staticTokenVerifier(tokens) }
    },
    accepted: [
      { uid: 'ann', token: 'ann-secret', deviceLevel: 0 },
      { uid: 'bob', token: 'bob-phone', deviceLevel: 1 },
      { uid: 'ünal', token: 'şifre-👩‍👩‍👧', deviceLevel: 0 },
    ],
  }),
)
run(
  'allowAnyToken',
  tokenVerifierContract({
    open: () => ({ subject: allowAnyToken({ deviceLevel: 1 }) }),
    accepted: [{ uid: 'anybody', token: '', deviceLevel: 1 }],
    acceptsAnything: true,
  }),
)

run(
  'memoryReplicatorHub',
  replicatorContract({
    open: () => {
      const hub = memoryReplicatorHub({ retryDelayMs: 1 })
      const subject = [hub.replicator(), hub.replicator(), hub.replicator()]
      return {
        subject,
        close: async () => {
          for (const replicator of subject) await replicator.close()
        },
      }
    },
  }),
)
run(
  'memoryPeerHub',
  peerPushContract({
    open: () => {
      const hub = memoryPeerHub()
      return { subject: [hub.peer(), hub.peer(), hub.peer()] }
    },
  }),
)
