/**
 * The least a server of this protocol can do: it decodes every frame and encodes the answers, and nothing else. No login is
 * checked, nothing is ordered, kept, recognised or sent again: the ceiling for an engine that has to do all of that.
 */
import { createServer, type Socket } from 'node:net'
import { encode, FrameDecoder, FrameType, ReasonCode, type Frame } from 'imengine/protocol'
import { listen, type Running } from './listen.ts'

const VERSION = 5

interface Peer {
  readonly socket: Socket
  uid: string
  out: Uint8Array[]
}

export async function serveCodec(): Promise<Running> {
  const peers = new Map<string, Peer>()
  const sockets = new Set<Socket>()
  let dirty: Peer[] = []
  let lastID = 0
  const seqs = new Map<string, number>()
  const flush = (): void => {
    const flushed = dirty
    dirty = []
    for (const peer of flushed) {
      peer.socket.write(Buffer.concat(peer.out))
      peer.out = []
    }
  }
  const queue = (peer: Peer, bytes: Uint8Array): void => {
    if (dirty.length === 0) setImmediate(flush)
    if (peer.out.length === 0) dirty.push(peer)
    peer.out.push(bytes)
  }
  const answer = (peer: Peer, frame: Frame): void => {
    if (frame.type === FrameType.CONNECT) {
      peer.uid = frame.uid
      peers.set(frame.uid, peer)
      queue(peer, encode({ type: FrameType.CONNACK, timeDiffMs: 0n, reasonCode: ReasonCode.Success, serverKey: '', salt: '', nodeID: '1', serverVersion: VERSION }, VERSION))
    } else if (frame.type === FrameType.SEND) {
      const { clientSeq, clientMsgNo, channelID, payload, flags } = frame
      const messageID = String(++lastID)
      const messageSeq = (seqs.get(channelID) ?? 0) + 1
      seqs.set(channelID, messageSeq)
      queue(peer, encode({ type: FrameType.SENDACK, flags, messageID, clientSeq, messageSeq, reasonCode: ReasonCode.Success }, VERSION))
      const receiver = peers.get(channelID)
      if (receiver === undefined) return
      queue(receiver, encode({
        type: FrameType.RECV, flags, setting: 0, msgKey: '', fromUID: peer.uid, channelID: peer.uid, channelType: 1, expireSec: 0, clientMsgNo,
        streamFlag: 0, streamNo: '', streamID: '0', messageID, messageSeq, timestampSec: 0, topic: '', payload,
      }, VERSION))
    }
  }
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    const peer: Peer = { socket, uid: '', out: [] }
    const decoder = new FrameDecoder({ version: VERSION })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk: Buffer) => void decoder.feed(chunk, (frame) => answer(peer, frame)))
  })
  const port = await listen(server)
  return {
    port,
    close: async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
