/**
 * Calls between nodes as requests over core NATS, to the subject of the node that is meant. Power loss ends what is under way:
 * its caller is told IM_PEER_UNREACHABLE. A slow peer holds up the pushes of its own channels, and at the bounds is no longer
 * asked. Close tells the others, answers nothing more and ends what waits.
 */
import { randomBytes } from 'node:crypto'
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node'
import type { PeerKickRequest, PeerPush, PeerPushHost, PeerPushRequest } from '../../contracts/peer-push.ts'
import { badOption, describeCause, IMError } from '../../errors.ts'
import type { ClusterConnection, ClusterConnectionState } from './connection.ts'
import type { OwedKicks } from './owed-kicks.ts'
import { PeerCalls } from './peer-calls.ts'
import { PeerMembers } from './peer-members.ts'
import { Answer, decodePeerFrame, encodeAnswer, encodeKick, encodePush, encodeSpeaker, Kind, type PeerFrame, type Speaker } from './peer-wire.ts'

export interface NatsPeerPushOptions {
  readonly connection: ClusterConnection
  /** every subject begins with it */
  readonly name: string
  /** how often nodes tell each other that they live, in milliseconds; silent for three of them is lost, and called again when it is heard */
  readonly peerBeatMs: number
  /** a call that has not been answered for so long has failed, whatever its signal allows */
  readonly peerCallTimeoutMs: number
  /** calls that wait for an answer, and calls of others that wait for the host: each at most so many … */
  readonly maxPeerCalls: number
  /** … and so many bytes */
  readonly maxPeerCallBytes: number
  readonly report: (error: IMError) => void
}

/** For the answers of those who live, when a node starts. */
const HELLO_LIMIT_MS = 500

/** What is kept free of max_payload, for headers. */
const HEADER_BYTES = 256

interface Running {
  readonly host: PeerPushHost
  readonly speaker: Speaker
  readonly nats: NatsConnection
  readonly calls: PeerCalls
  readonly members: PeerMembers
  readonly subscriptions: Subscription[]
  readonly timer: NodeJS.Timeout
  /** Does no other node have this id? What is called before that is known may be meant for one that has it, and answers for itself. */
  readonly admitted: Promise<boolean>
  admit(isAdmitted: boolean): void
  unwatch(): void
}

/**
 * Pushes are sent at once, one behind the other on one connection, and the called node takes those of one channel in turn.
 * One that is too large for the servers goes as several, each sent when the one before was taken.
 */
export class NatsPeerPush implements PeerPush {
  readonly #options: NatsPeerPushOptions
  #running: Running | undefined
  #starting: Promise<void> | undefined
  #isClosed = false
  /** pushes in several parts, and what waits behind them: by node and channel */
  readonly #outgoing = new Map<string, Promise<void>>()
  /** pushes of others that the host has not taken: by node and channel */
  readonly #incoming = new Map<string, Promise<void>>()
  #incomingCount = 0
  #incomingBytes = 0

  constructor(options: NatsPeerPushOptions) {
    this.#options = options
  }

  start(host: PeerPushHost): Promise<void> {
    if (this.#starting !== undefined) return Promise.reject(new TypeError('imengine: this peer has been started already'))
    this.#isClosed = false
    const starting = (this.#starting = this.#start(host))
    starting.catch(() => {
      if (this.#starting === starting) this.#starting = undefined
    })
    return starting
  }

  async push(nodeID: number, request: PeerPushRequest, signal: AbortSignal): Promise<void> {
    const lane = laneOf(nodeID, request)
    try {
      signal.throwIfAborted()
      const { nats, calls, host } = this.#reachable()
      const parts = encodePush(host.nodeID, request, (nats.info?.max_payload ?? 1_048_576) - HEADER_BYTES)
      const waiting = this.#outgoing.get(lane)
      if (parts.length === 1 && waiting === undefined) return await calls.ask(nodeID, parts[0]!, signal)
      const made = (waiting ?? Promise.resolve()).then(async () => {
        for (const part of parts) await calls.ask(nodeID, part, signal)
      })
      const settled = made.catch(() => undefined) // told below; the next push of the channel does not depend on it
      this.#outgoing.set(lane, settled)
      void settled.then(() => {
        if (this.#outgoing.get(lane) === settled) this.#outgoing.delete(lane)
      })
      await made
    } catch (cause) {
      throw unreachable(nodeID, cause)
    }
  }

  async kick(request: PeerKickRequest, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw unreachable(undefined, signal.reason)
    const { calls, members, host } = this.#reachable()
    const bytes = encodeKick(host.nodeID, request)
    const failures: unknown[] = []
    const failed = (nodeID: number, failure: IMError): void => {
      // One that has said goodbye meanwhile holds no connections any more.
      if (!members.has(nodeID)) return
      members.owe(nodeID, request)
      failures.push(failure)
    }
    for (const nodeID of members.lostNodeIDs) failed(nodeID, new IMError('IM_PEER_UNREACHABLE', { detail: 'the node has fallen silent', context: { nodeID } }))
    await Promise.all(members.nodeIDs.map((nodeID) => calls.ask(nodeID, bytes, signal).catch((cause: unknown) => failed(nodeID, unreachable(nodeID, cause)))))
    if (failures.length > 0) throw failures[0]
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#starting?.catch(() => undefined) // it ends by itself when it sees that it is closed
    this.#starting = undefined
    await this.#end()
  }

  async #start(host: PeerPushHost): Promise<void> {
    const { connection, name, peerBeatMs, peerCallTimeoutMs, maxPeerCalls, maxPeerCallBytes } = this.#options
    const nats = await connection.acquire()
    const speaker = { nodeID: host.nodeID, boot: randomBytes(9).toString('base64url') }
    const calls = new PeerCalls({ nats, subjectOf: (nodeID) => `${name}.node.${nodeID}`, timeoutMs: peerCallTimeoutMs, maxCount: maxPeerCalls, maxBytes: maxPeerCallBytes })
    const members = new PeerMembers(peerBeatMs)
    let admit!: Running['admit']
    const admitted = new Promise<boolean>((resolve) => (admit = resolve))
    const running: Running = {
      host,
      speaker,
      nats,
      calls,
      members,
      subscriptions: [],
      timer: setInterval(() => this.#beat(), peerBeatMs),
      admitted,
      admit,
      unwatch: connection.watch((state) => this.#connectionChanged(state)),
    }
    this.#running = running
    let isRefused = false
    try {
      const others = await this.#meet(running)
      isRefused = others.includes(host.nodeID)
      if (isRefused) badOption('nodeID', 'one that no other running node has', host.nodeID)
      if (this.#isClosed) throw new IMError('IM_ABORTED', { detail: 'closed while it started' })
      running.admit(true)
    } catch (error) {
      await this.#end(isRefused)
      throw error instanceof TypeError || error instanceof IMError ? error : new IMError('IM_CLUSTER_UNAVAILABLE', { detail: 'NATS did not answer', cause: error })
    }
  }

  /**
   * Tell everyone that this node is here, and hear who else is, so that a kick right after `start`, here or there, misses nobody.
   * @returns their ids, this node's own only when another life of it answers
   */
  async #meet(running: Running): Promise<number[]> {
    const { nats, speaker, calls, members } = running
    const { name } = this.#options
    const answered = new Set<number>()
    const expected = new Set<number>()
    const hello = encodeSpeaker(Kind.Hello, speaker)
    running.subscriptions.push(nats.subscribe(`${name}.node.${speaker.nodeID}`, { callback: (error, msg) => this.#called(error, msg) }))
    await calls.openInbox() // whoever hears of this node from here on can call it
    // Asked before this node listens there itself: with nobody there the servers say so at once.
    await calls.gather(`${name}.peers`, hello, HELLO_LIMIT_MS, (bytes) => {
      const frame = this.#read(bytes)
      if (frame?.kind !== Kind.Alive) return false
      answered.add(frame.speaker.nodeID)
      // This node's own id among them is an earlier life, whose death has not been noticed, or another process that lives.
      for (const known of frame.knownNodeIDs) expected.add(known)
      if (frame.speaker.boot !== speaker.boot && frame.speaker.nodeID !== speaker.nodeID) members.heard(frame.speaker)
      return [...expected].every((nodeID) => answered.has(nodeID))
    })
    if (answered.has(speaker.nodeID) || this.#isClosed) return [...answered]
    running.subscriptions.push(nats.subscribe(`${name}.peers`, { callback: (error, msg) => this.#peerSpoke(error, msg) }))
    nats.publish(`${name}.peers`, hello) // those who started in the same moment
    await calls.flush()
    return [...answered]
  }

  /** @param isRefused  the others have heard of it under the id of a node that runs, and would take its goodbye for that node's */
  async #end(isRefused = false): Promise<void> {
    const running = this.#running
    if (running === undefined) return
    this.#running = undefined
    running.admit(false)
    const { nats, subscriptions, calls, speaker } = running
    clearInterval(running.timer)
    running.unwatch()
    calls.close()
    for (const subscription of subscriptions) subscription.unsubscribe()
    if (!isRefused && subscriptions.length > 0 && this.#options.connection.isConnected && !nats.isClosed()) {
      nats.publish(`${this.#options.name}.peers`, encodeSpeaker(Kind.Bye, speaker))
      await calls.flush().catch(() => undefined) // the others find out by its silence
    }
    await this.#options.connection.release()
  }

  #reachable(): Running {
    if (this.#running === undefined) throw new IMError('IM_PEER_UNREACHABLE', { detail: 'this peer is not started' })
    if (!this.#options.connection.isConnected) throw new IMError('IM_PEER_UNREACHABLE', { detail: 'this node is cut off from NATS' })
    return this.#running
  }

  #beat(): void {
    const running = this.#running
    if (running === undefined || running.subscriptions.length === 0) return
    running.calls.expire()
    if (!this.#options.connection.isConnected) return // nobody can be heard
    const { nats, speaker, members } = running
    for (const nodeID of members.loseSilent()) running.calls.failAllTo(nodeID)
    nats.publish(`${this.#options.name}.peers`, encodeSpeaker(Kind.Alive, speaker))
  }

  #connectionChanged({ name }: ClusterConnectionState): void {
    const running = this.#running
    if (running === undefined) return
    if (name !== 'connected') return running.calls.failAll('the connection to NATS was lost')
    running.members.listenAnew()
    if (running.subscriptions.length > 0) running.nats.publish(`${this.#options.name}.peers`, encodeSpeaker(Kind.Hello, running.speaker))
  }

  /** A frame of another node; whatever else comes is told and dropped. */
  #read(bytes: Uint8Array): PeerFrame | undefined {
    try {
      return decodePeerFrame(bytes)
    } catch (error) {
      const why = error instanceof RangeError ? error.message : describeCause(error)
      this.#options.report(new IMError('IM_PEER_UNREACHABLE', { detail: `a call of another node could not be read: ${why}` }))
      return undefined
    }
  }

  #peerSpoke(error: Error | null, msg: Msg): void {
    const running = this.#running
    if (error !== null || running === undefined) return
    const frame = this.#read(msg.data)
    if (frame === undefined || frame.kind === Kind.Push || frame.kind === Kind.Kick) return
    const { speaker, members } = running
    if (frame.speaker.boot === speaker.boot) return
    if (frame.kind === Kind.Bye) return members.left(frame.speaker)
    const knownNodeIDs = members.nodeIDs
    if (frame.speaker.nodeID !== speaker.nodeID) {
      const owed = members.heard(frame.speaker)
      if (owed !== undefined) void this.#settle(running, frame.speaker.nodeID, owed)
    }
    if (frame.kind !== Kind.Hello) return
    const alive = encodeSpeaker(Kind.Alive, speaker, knownNodeIDs)
    if (!msg.respond(alive)) running.nats.publish(`${this.#options.name}.peers`, alive)
  }

  /** A node that had fallen silent is there again: it learns who has logged in elsewhere, or was sent away, meanwhile. Never rejects. */
  async #settle({ calls, members, host }: Running, nodeID: number, owed: OwedKicks): Promise<void> {
    const never = new AbortController().signal // the calls have a limit of their own
    for (let kick = owed.oldest; kick !== undefined; kick = owed.oldest) {
      try {
        await calls.ask(nodeID, encodeKick(host.nodeID, kick), never)
      } catch {
        if (this.#running === undefined || !members.has(nodeID)) return // nobody is there to be told, or to tell
        if (members.isLost(nodeID)) return members.oweAgain(nodeID, owed)
        owed.givenUpCount++
      }
      owed.dropOldest()
    }
    if (owed.givenUpCount === 0) return
    const detail = `the node was silent, and has not been told of ${owed.givenUpCount} logins and kicks meanwhile: older logins there go on`
    this.#options.report(new IMError('IM_PEER_UNREACHABLE', { detail, context: { nodeID } }))
  }

  #called(error: Error | null, msg: Msg): void {
    if (error !== null || this.#running === undefined) return
    const { host, admitted } = this.#running
    const answer = (code: (typeof Answer)[keyof typeof Answer]): void => {
      if (this.#running !== undefined) msg.respond(encodeAnswer(code))
    }
    const frame = this.#read(msg.data)
    if (frame === undefined || (frame.kind !== Kind.Push && frame.kind !== Kind.Kick)) return answer(Answer.Unreadable)
    const { maxPeerCalls, maxPeerCallBytes } = this.#options
    const byteCount = msg.data.length
    const isFull = this.#incomingCount >= maxPeerCalls || this.#incomingBytes + byteCount > maxPeerCallBytes
    if (isFull && this.#incomingCount > 0) return answer(Answer.Busy)
    this.#incomingCount++
    this.#incomingBytes += byteCount
    const lane = frame.kind === Kind.Push ? laneOf(frame.fromNodeID, frame.request) : undefined
    const before = lane === undefined ? undefined : this.#incoming.get(lane)
    const taken = (before ?? Promise.resolve())
      .then(async () => {
        if (!(await admitted)) throw new IMError('IM_ABORTED', { detail: 'it has not started' })
        return frame.kind === Kind.Push ? host.pushed(frame.request) : host.kicked(frame.request)
      })
      .then(
        () => answer(Answer.Taken),
        () => answer(Answer.Failed), // the host has told its own of it
      )
      .then(() => {
        this.#incomingCount--
        this.#incomingBytes -= byteCount
        if (lane !== undefined && this.#incoming.get(lane) === taken) this.#incoming.delete(lane)
      })
    if (lane !== undefined) this.#incoming.set(lane, taken)
  }
}

function laneOf(nodeID: number, { key }: PeerPushRequest): string {
  return `${nodeID}:${key.channelType}:${key.channelID}`
}

function unreachable(nodeID: number | undefined, cause: unknown): IMError {
  if (cause instanceof IMError && cause.code === 'IM_PEER_UNREACHABLE') return cause
  const detail = cause instanceof RangeError ? { detail: cause.message } : {}
  return new IMError('IM_PEER_UNREACHABLE', { cause, ...detail, ...(nodeID === undefined ? {} : { context: { nodeID } }) })
}
