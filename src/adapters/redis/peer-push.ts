/**
 * Pushes and kicks from node to node over the pub/sub of Redis, which keeps nothing: a call is over when the other node has
 * answered that it has taken it over, and fails when nobody listens there, when no answer comes in time, or when the connection
 * that the answer would come on is lost. Power loss ends calls with their callers. A slow peer holds up the pushes to itself, up
 * to `maxCallCount` and `maxCallBytes`. `close` ends what waits with IM_PEER_UNREACHABLE.
 */
import { randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { Redis } from 'ioredis'
import type { PeerKickRequest, PeerPush, PeerPushHost, PeerPushRequest } from '../../contracts/peer-push.ts'
import { badOption, IMError } from '../../errors.ts'
import { Obstacle, redisFailure } from './failures.ts'
import { encodeAnswer, encodeKick, encodeParts, LIFE_BYTES, Outcome, type Answer } from './frames.ts'
import { Inbox } from './inbox.ts'
import type { RedisLink } from './link.ts'
import { liveEpochs, runScript, stateKeys } from './presence.ts'
import { encodePush } from './push-bytes.ts'
import { ASK_ALL } from './scripts.ts'

export interface RedisPeerPushOptions {
  readonly asking: RedisLink
  readonly listening: RedisLink
  readonly closeLinks: () => Promise<void>
  readonly prefix: string
  readonly answerTimeoutMs: number
  readonly maxCallCount: number
  readonly maxCallBytes: number
  readonly maxPublishBytes: number
  readonly report: (error: IMError) => void
}

/** A call that waits for one answer, or for several. */
interface Call {
  readonly callID: number
  readonly answered: (answer: Answer) => void
  readonly fail: (reason: Error) => void
}

/** A push that was not confirmed: made again with the same bytes, it is the same call. */
interface Unconfirmed {
  readonly callID: number
  readonly checksum: number
}

const MAX_NODE_ID = 1_023

export class RedisPeerPush implements PeerPush {
  readonly #options: RedisPeerPushOptions
  readonly #life = randomBytes(LIFE_BYTES).toString('hex')
  readonly #calls = new Map<number, Call>()
  /** by the request itself and the node: whoever tries again does so with the object that failed */
  readonly #unconfirmed = new WeakMap<PeerPushRequest, Map<number, Unconfirmed>>()
  #host: PeerPushHost | undefined
  #inbox: Inbox | undefined
  #subscriber: Redis | undefined
  #callBytes = 0
  #lastCallID = 0
  #closed: Promise<void> | undefined

  constructor(options: RedisPeerPushOptions) {
    this.#options = options
  }

  async start(host: PeerPushHost): Promise<void> {
    if (this.#host !== undefined) throw new TypeError('imengine: this peer has been started already')
    if (!isNodeID(host.nodeID)) badOption('nodeID', `an integer from 0 to ${MAX_NODE_ID}`, host.nodeID)
    const { maxCallCount, maxCallBytes, report, listening } = this.#options
    this.#host = host
    this.#inbox = new Inbox({
      host,
      life: this.#life,
      maxCallCount,
      maxCallBytes,
      report,
      answer: (call, outcome) => {
        const answer = encodeAnswer(call, { nodeID: host.nodeID, life: this.#life, outcome })
        // An answer that is lost is asked for again; what cannot be sent must not pile up.
        this.#publish(call.nodeID, answer).catch(() => undefined)
      },
      answered: (callID, answer) => this.#calls.get(callID)?.answered(answer),
    })
    try {
      await listening.run(() => Promise.resolve())
    } catch (error) {
      throw redisFailure('IM_PEER_UNREACHABLE', error, { nodeID: host.nodeID })
    }
  }

  async push(nodeID: number, request: PeerPushRequest, signal: AbortSignal): Promise<void> {
    if (!isNodeID(nodeID)) badOption('nodeID', `an integer from 0 to ${MAX_NODE_ID}`, nodeID)
    try {
      const { nodeID: ownID } = this.#running(signal)
      const { maxCallBytes, maxPublishBytes } = this.#options
      const bytes = encodePush(request)
      if (this.#callBytes + bytes.length > maxCallBytes) throw new Obstacle('more than maxCallBytes wait to be taken over')
      const callID = this.#callIDOf(nodeID, request, bytes)
      const parts = encodeParts({ nodeID: ownID, life: this.#life, callID }, bytes, maxPublishBytes)
      this.#callBytes += bytes.length
      try {
        await this.#call(callID, signal, (call, done) => {
          for (const part of parts) {
            this.#publish(nodeID, part, call).then((count) => count === 0 && call.fail(new Obstacle('nobody listens there')), call.fail)
          }
          return (answer) => {
            if (answer.nodeID === nodeID) done(answer.outcome)
          }
        })
      } catch (error) {
        this.#rememberUnconfirmed(nodeID, request, { callID, checksum: crc32(bytes) })
        throw error
      } finally {
        this.#callBytes -= bytes.length
      }
      this.#unconfirmed.get(request)?.delete(nodeID)
    } catch (error) {
      throw unreachable(error, nodeID)
    }
  }

  async kick(request: PeerKickRequest, signal: AbortSignal): Promise<void> {
    try {
      const { nodeID: ownID } = this.#running(signal)
      const callID = ++this.#lastCallID
      const frame = encodeKick({ nodeID: ownID, life: this.#life, callID }, request)
      await this.#call(callID, signal, (call, done) => {
        const lives = new Set<string>()
        const nodeIDs = new Set<number>()
        let isEnough = (): boolean => false
        const look = (): void => {
          if (isEnough()) done(Outcome.Taken)
        }
        this.#askAll(frame).then(({ count, live }) => {
          // Where nodes say that they live, these are asked: who has not said so yet has no connections. Otherwise Redis has
          // counted who listens; it counts one whose machine is gone until it notices that, and not one that connects again.
          const mustConfirm = live.has(ownID) ? [...live.keys()] : undefined
          const isConfirmed = (): boolean => mustConfirm?.every((nodeID) => nodeIDs.has(nodeID)) ?? lives.size >= count
          isEnough = () => lives.has(this.#life) && isConfirmed()
          look()
        }, call.fail)
        return (answer) => {
          if (answer.outcome !== Outcome.Taken) return done(answer.outcome)
          lives.add(answer.life)
          nodeIDs.add(answer.nodeID)
          look()
        }
      })
    } catch (error) {
      throw unreachable(error, undefined)
    }
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close())
  }

  /** On every new connection of the listening link. */
  async subscribe(client: Redis): Promise<void> {
    const host = this.#host
    if (host === undefined) throw new Obstacle('the peer is not started')
    if (this.#subscriber !== client) client.on('messageBuffer', (_channel: Buffer, frame: Buffer) => this.#inbox?.receive(frame))
    this.#subscriber = client
    await client.subscribe(this.#channelOf(host.nodeID), this.#channelOf('all'))
  }

  /** The connection that answers come on is gone, and answers with it: whoever waits may ask again. */
  lost(): void {
    for (const { fail } of this.#calls.values()) fail(new Obstacle('the connection to Redis was lost'))
  }

  async #close(): Promise<void> {
    this.#inbox?.close()
    for (const { fail } of this.#calls.values()) fail(new Obstacle('the peer is closed'))
    await this.#options.closeLinks()
  }

  #running(signal: AbortSignal): PeerPushHost {
    if (signal.aborted) throw givenUp(signal)
    if (this.#closed !== undefined) throw new Obstacle('the peer is closed')
    if (this.#host === undefined) throw new Obstacle('the peer is not started')
    if (!this.#options.listening.isReady) throw new Obstacle('Redis is not connected, and no answer would be heard')
    if (this.#calls.size >= this.#options.maxCallCount) throw new Obstacle('more than maxCallCount calls wait for an answer')
    return this.#host
  }

  /** Wait until `done`, but no longer than `signal`, `answerTimeoutMs` and `close` allow. `begin` returns what hears the answers. */
  #call(
    callID: number,
    signal: AbortSignal,
    begin: (call: Call, done: (outcome: number) => void) => (answer: Answer) => void,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      let hear: (answer: Answer) => void = () => undefined
      const end = (): void => {
        if (this.#calls.get(callID) === call) this.#calls.delete(callID)
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
      }
      const fail = (reason: Error): void => {
        end()
        reject(reason)
      }
      const call: Call = { callID, answered: (answer) => hear(answer), fail }
      const abort = (): void => fail(givenUp(signal))
      const timer = setTimeout(() => fail(new Obstacle('no answer in time')), this.#options.answerTimeoutMs)
      signal.addEventListener('abort', abort, { once: true })
      this.#calls.get(callID)?.fail(new Obstacle('the same push is made again'))
      this.#calls.set(callID, call)
      hear = begin(call, (outcome) => {
        if (outcome !== Outcome.Taken) return fail(new Obstacle(reasonOf(outcome)))
        end()
        resolve()
      })
    })
  }

  /** A push that failed and is made again with nothing changed has its earlier number: the other node may have taken it over. */
  #callIDOf(nodeID: number, request: PeerPushRequest, bytes: Buffer): number {
    const earlier = this.#unconfirmed.get(request)?.get(nodeID)
    return earlier !== undefined && earlier.checksum === crc32(bytes) ? earlier.callID : ++this.#lastCallID
  }

  #rememberUnconfirmed(nodeID: number, request: PeerPushRequest, unconfirmed: Unconfirmed): void {
    const byNode = this.#unconfirmed.get(request)
    if (byNode === undefined) this.#unconfirmed.set(request, new Map([[nodeID, unconfirmed]]))
    else byNode.set(nodeID, unconfirmed)
  }

  /** How many have been reached; -1 when `call` was given up before its turn, and is not made. */
  #publish(nodeID: number, frame: Buffer, call?: Call): Promise<number> {
    const { asking, maxCallBytes } = this.#options
    if (asking.bufferedBytes > maxCallBytes) return Promise.reject(new Obstacle('Redis does not read'))
    return asking.run((client) => {
      if (call !== undefined && this.#calls.get(call.callID) !== call) return Promise.resolve(-1)
      return client.publish(this.#channelOf(nodeID), frame)
    })
  }

  async #askAll(frame: Buffer): Promise<{ count: number; live: ReadonlyMap<number, string> }> {
    const { asking, prefix } = this.#options
    const values = [`${prefix}node:`, this.#channelOf('all'), frame]
    const answer = await asking.run((client) => runScript(client, ASK_ALL, stateKeys(prefix), values))
    const [count, time, records] = answer as [number, string, string[]]
    return { count, live: liveEpochs(Number(time), records) }
  }

  #channelOf(node: number | 'all'): string {
    return `${this.#options.prefix}peer:${node}`
  }
}

function isNodeID(nodeID: number): boolean {
  return Number.isInteger(nodeID) && nodeID >= 0 && nodeID <= MAX_NODE_ID
}

function reasonOf(outcome: number): string {
  if (outcome === Outcome.NotUnderstood) return 'the other node does not understand it'
  if (outcome === Outcome.TooMuch) return 'too much waits there'
  return 'the other node failed'
}

function givenUp(signal: AbortSignal): IMError {
  return new IMError('IM_PEER_UNREACHABLE', { detail: 'the caller gave up waiting', cause: signal.reason })
}

/** Mistakes of the caller stay what they are. */
function unreachable(error: unknown, nodeID: number | undefined): unknown {
  if (error instanceof TypeError) return error
  return redisFailure('IM_PEER_UNREACHABLE', error, nodeID === undefined ? {} : { nodeID })
}
