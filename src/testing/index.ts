/** `imengine/testing`: what tests of an engine, and authors of adapters, need. Nothing here is used by a running engine. */
export { FakeClock } from './fake-clock.ts'
export { seededRandom, type SeededRandom } from './seeded-random.ts'
export { recordingLogger, type LogLine, type RecordingLogger } from './recording-logger.ts'
export { socketPair, type SocketEnd, type SocketPair, type SocketPairClient, type SocketPairOptions } from './socket-pair.ts'
export {
  connectTestClient,
  TestClient,
  type ConnectedTestClient,
  type ConnectTestClientOptions,
  type ReceivedMessage,
  type TestClientOptions,
  type TestConnectOptions,
  type TestSendOptions,
  type TestTransport,
} from './test-client.ts'
export type {
  ContractCase,
  ContractOptions,
  DurableContractOptions,
  Opened,
} from './suites/contract-case.ts'
export { channelDirectoryContract } from './suites/channel-directory.ts'
export { clockContract, type ClockContractOptions } from './suites/clock.ts'
export { cursorStoreContract } from './suites/cursor-store.ts'
export { loggerContract, type LoggerContractOptions } from './suites/logger.ts'
export { messageStoreContract } from './suites/message-store.ts'
export { outboxContract } from './suites/outbox.ts'
export { peerPushContract } from './suites/peer-push.ts'
export { presenceContract, type PresenceContractOptions } from './suites/presence.ts'
export { randomContract } from './suites/random.ts'
export { replicatorContract } from './suites/replicator.ts'
export { sampleMessage } from './suites/samples.ts'
export { socketContract, type SocketContractOptions, type SocketFarEnd } from './suites/socket.ts'
export { tokenStoreContract } from './suites/token-store.ts'
export { tokenVerifierContract, type TokenSample, type TokenVerifierContractOptions } from './suites/token-verifier.ts'
export { webhookContract, type WebhookContractOptions, type WebhookFarEnd } from './suites/webhook.ts'
