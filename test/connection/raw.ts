import type { IMEngine } from 'imengine'
import { socketPair, TestClient, type SocketPair, type SocketPairOptions } from 'imengine/testing'
import type { Facts } from '../../src/contracts/facts.ts'
import { FrameType, LATEST_VERSION, type ConnectPacket, type Frame, type SendPacket } from '../../src/model/frames.ts'

/** A socket that the engine has accepted and that has not said anything yet. */
export function openSocket(engine: IMEngine, options: SocketPairOptions & { readonly remoteAddress?: string } = {}): { pair: SocketPair; client: TestClient } {
  const pair = socketPair(options)
  const { remoteAddress } = options
  pair.attach(engine.accept(pair.server, remoteAddress === undefined ? {} : { remoteAddress }))
  return { pair, client: new TestClient(pair.client) }
}

/** The facts of one name from now on. */
export function heard<K extends keyof Facts>(engine: IMEngine, name: K): Facts[K][0][] {
  const facts: Facts[K][0][] = []
  engine.on(name, (...args) => void facts.push(args[0]))
  return facts
}

/** The types of the frames that a client has got, in order. */
export function typesOf(client: TestClient): Frame['type'][] {
  return client.received.map((frame) => frame.type)
}

/** A CONNECT that asks for a plain connection. */
export function plainConnect(uid: string): ConnectPacket {
  return {
    type: FrameType.CONNECT, flags: 0, version: LATEST_VERSION, deviceFlag: 0, deviceID: 'phone', uid, token: '', clientTimestampMs: 0n, clientKey: '',
  }
}

/** A SEND to the team as a plain connection writes it. */
export function plainSend(payload: string, clientMsgNo = 'n1'): SendPacket {
  return {
    type: FrameType.SEND, flags: 0, setting: 0, clientSeq: 1, clientMsgNo, streamNo: '', channelID: 'team', channelType: 2, expireSec: 0,
    msgKey: '', topic: '', payload: Buffer.from(payload),
  }
}
