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
