/**
 * What the documents say a connection does with what comes in: the table of frames and the sentences below it in
 * docs/protocol.md, the bounds of docs/limits.md, the order of checks of docs/permissions.md, and decision 0008. Written down a
 * second time, as a state machine that a person can check against those pages; nothing here comes from `src`.
 */
import { isOurKey, isUsableKey, ReferenceCipher } from './payload.ts'
import { ReferenceStream, Type, type ReferenceFrame } from './wire.ts'

/** The engine that the fuzz talks to. */
export interface World {
  readonly plaintext: 'allow' | 'refuse'
  readonly maxFrameBytes: number
  readonly maxPayloadBytes: number
  readonly maxUnauthenticatedBytes: number
  /** of the one group there is, "team" */
  readonly members: readonly string[]
}

export interface ExpectedAnswer {
  readonly clientSeq: number
  readonly flags: number
  /** the reasons that are right: one, or two where the pages leave it open */
  readonly reasons: readonly number[]
  /** hex of the plaintext that is kept; undefined when it must not be, or need not */
  readonly payload: string | undefined
}

/** How it ends. `cause` is that of the fact; undefined when the pages do not say who is to tell it. */
export interface ExpectedEnd {
  readonly code: number
  readonly cause: string | undefined
  readonly reason?: string
}

const MAX_FRAMES_PER_CHUNK = 10_000
const SERVER_ONLY = new Set<number>([Type.CONNACK, Type.SENDACK, Type.RECV, Type.PONG, Type.SUBACK])
const Reason = { Success: 1, AuthFail: 2, NotMember: 3, NoChannel: 5, BadPayload: 9, NotAllowed: 11, SystemError: 15, BadChannelID: 16, NoKey: 21, NoDataChannels: 23 } as const
/** An answer to a frame that came in the same chunk as the end may not get out any more. */
interface Answers {
  sendacks: ExpectedAnswer[]
  subacks: string[]
  pongCount: number
}

export class ReferenceConnection {
  state: 'new' | 'authenticating' | 'open' | 'ended' = 'new'
  /** reason code of the CONNACK that must have come; undefined for none */
  connack: number | undefined = undefined
  end: ExpectedEnd | undefined = undefined
  uid = ''
  version = 5
  /** in chunks before the last one, and in the last one */
  readonly owed: Answers = { sendacks: [], subacks: [], pongCount: 0 }
  recent: Answers = { sendacks: [], subacks: [], pongCount: 0 }
  /** what was met, for choosing inputs that are worth keeping: "state frame outcome" */
  readonly classes = new Set<string>()
  readonly #world: World
  readonly #stream: ReferenceStream
  readonly #known = new Map<string, { readonly payload: string; readonly isKept: boolean }>()
  #cipher: ReferenceCipher | undefined
  #clientKey = ''
  #isFramingKnown = false
  #unauthenticatedBytes = 0
  #hasPinged = false

  constructor(world: World) {
    this.#world = world
    this.#stream = new ReferenceStream(this.version, world.maxFrameBytes)
  }

  /** One chunk of the stream, or one binary message. */
  receive(chunk: Uint8Array): void {
    this.#turnOver()
    if (this.state === 'ended') return
    if (this.state !== 'open') {
      this.#unauthenticatedBytes += chunk.length
      if (this.#unauthenticatedBytes > this.#world.maxUnauthenticatedBytes) return this.#ends({ code: 1000, cause: 'limit' }, 'too much before CONNACK')
    }
    if (!this.#isFramingKnown) {
      const first = chunk.find((byte) => ![0x20, 0x09, 0x0a, 0x0d].includes(byte))
      if (first === undefined) return // nothing but white space decides nothing, and is dropped
      this.#isFramingKnown = true
      if (first === 0x7b) return this.#ends({ code: 1003, cause: 'protocol' }, 'JSON')
    }
    this.#stream.add(chunk)
    let frameCount = 0
    for (let frame = this.#stream.next(); frame !== undefined; frame = this.#stream.next()) {
      if (++frameCount > MAX_FRAMES_PER_CHUNK) this.#ends({ code: 1002, cause: 'protocol' }, 'too many frames')
      else this.#take(frame)
      if (this.isOver) return
    }
    const { malformed } = this.#stream
    if (malformed !== undefined) this.#ends({ code: malformed === 'too-large' ? 1009 : 1002, cause: 'malformed', reason: malformed }, malformed)
  }

  /** One text message of a WebSocket: closed with 1003, whatever it says and whenever it comes. */
  receiveText(): void {
    this.#turnOver()
    if (this.state !== 'ended') this.#ends({ code: 1003, cause: undefined }, 'text')
  }

  /** The verifier has answered. */
  verified(isKnown: boolean): void {
    if (this.state !== 'authenticating') return
    if (!isKnown) return this.#refused(Reason.AuthFail)
    if (this.#clientKey !== '' && !isUsableKey(this.#clientKey)) return this.#refused(Reason.AuthFail)
    this.state = 'open'
    this.connack = Reason.Success
    this.classes.add(`v${this.version} ${this.#clientKey === '' ? 'plain' : 'encrypted'} opened`)
    if (this.#hasPinged) this.recent.pongCount++
  }

  /** CONNACK has come: from here on this is what opens payloads. Undefined for a key whose secret half nobody here has. */
  agreed(serverKey: string, salt: string): ReferenceCipher | undefined {
    return (this.#cipher = isOurKey(this.#clientKey) ? new ReferenceCipher(serverKey, salt) : undefined)
  }

  get isOver(): boolean {
    return this.state === 'ended'
  }

  #turnOver(): void {
    if (this.isOver) return
    this.owed.sendacks.push(...this.recent.sendacks)
    this.owed.subacks.push(...this.recent.subacks)
    this.owed.pongCount += this.recent.pongCount
    this.recent = { sendacks: [], subacks: [], pongCount: 0 }
  }

  #take(frame: ReferenceFrame): void {
    const name = `${this.state} ${frame.type}`
    if (this.state === 'new' && frame.type === Type.CONNECT) return this.#connect(frame)
    if (this.state === 'new') return this.#ends({ code: 1002, cause: 'protocol' }, `${name} first`)
    if (frame.type === Type.CONNECT || SERVER_ONLY.has(frame.type)) return this.#ends({ code: 1002, cause: 'protocol' }, `${name} not allowed`)
    if (frame.type === Type.DISCONNECT) return this.#ends({ code: 1000, cause: 'client' }, name)
    this.classes.add(name)
    if (frame.type === Type.PING && this.state === 'open') this.recent.pongCount++
    else if (frame.type === Type.PING) this.#hasPinged = true
    else if (frame.type === Type.SUB && this.state === 'open') this.recent.subacks.push(subackTo(frame))
    else if (frame.type === Type.SEND && this.state === 'open') this.#send(frame)
    // RECVACKs of what was never sent, EVENTs, and everything else before CONNACK: nothing.
  }

  #connect(frame: ReferenceFrame): void {
    this.uid = String(frame['uid'])
    this.#clientKey = String(frame['clientKey'])
    this.version = this.#stream.version = Math.min(Math.max(Number(frame['version']), 1), 5)
    this.state = 'authenticating'
    if (!isUID(this.uid)) this.#refused(Reason.AuthFail)
    else if (this.#clientKey === '' && this.#world.plaintext === 'refuse') this.#refused(Reason.NoKey)
  }

  #refused(reasonCode: number): void {
    this.connack = reasonCode
    this.#ends({ code: 1008, cause: 'refused' }, `CONNACK ${reasonCode}`)
  }

  #send(frame: ReferenceFrame): void {
    const clientSeq = Number(frame['clientSeq'])
    const { reasons, payload } = this.#judge(frame)
    this.classes.add(`SEND type ${Math.min(Number(frame['channelType']), 13)} ${this.#cipher === undefined ? 'plain' : 'encrypted'} ${reasons.join('/')}`)
    this.recent.sendacks.push({ clientSeq, flags: frame.flags, reasons, payload })
  }

  #judge(frame: ReferenceFrame): { readonly reasons: readonly number[]; readonly payload: string | undefined } {
    const refused = (reason: number): { reasons: number[]; payload: undefined } => ({ reasons: [reason], payload: undefined })
    const payload = this.#plaintext(frame)
    if (payload === undefined || payload.length > this.#world.maxPayloadBytes) return refused(Reason.BadPayload)
    const channelID = String(frame['channelID'])
    const channelType = Number(frame['channelType'])
    const source = channelID.replace(/____cmd$/, '')
    if (channelType === 1 ? !isUID(source) : !isChannelID(source)) return refused(Reason.BadChannelID)
    const reason = this.#permission(source, channelType)
    if (reason !== Reason.Success) return refused(reason)
    const isKept = (frame.flags & 1) === 0
    const text = payload.toString('hex')
    const number = String(frame['clientMsgNo'])
    const isCommand = channelID !== source || (isKept && (frame.flags & 4) !== 0)
    const key = `${channelType} ${isCommand} ${source} ${number}`
    const known = number === '' ? undefined : this.#known.get(key)
    if (known === undefined) {
      this.#known.set(key, { payload: text, isKept })
      return { reasons: [Reason.Success], payload: isKept ? text : undefined }
    }
    // A repeat gets the answer of the first, another payload under its number 15. What is not kept may have been forgotten.
    if (!known.isKept || !isKept) return { reasons: [Reason.Success, Reason.SystemError], payload: undefined }
    return known.payload === text ? { reasons: [Reason.Success], payload: text } : refused(Reason.SystemError)
  }

  #plaintext(frame: ReferenceFrame): Buffer | undefined {
    const payload = Buffer.from(String(frame['payload']), 'hex')
    const isPlain = this.#clientKey === '' || (this.#world.plaintext === 'allow' && (Number(frame['setting']) & 0x10) !== 0)
    if (isPlain) return payload
    const fields = { clientSeq: Number(frame['clientSeq']), clientMsgNo: String(frame['clientMsgNo']), channelID: String(frame['channelID']), channelType: Number(frame['channelType']) }
    return this.#cipher?.open(fields, payload, String(frame['msgKey']))
  }

  /** Nobody is banned, denied or muted here, and the one channel that exists is the group "team". */
  #permission(channelID: string, channelType: number): number {
    switch (channelType) {
      case 1: // a person
      case 3: // customer service
      case 6: // info
      case 4: // community, topic, data, temp, live and agent group are open
      case 5:
      case 7:
      case 8:
      case 9:
      case 12:
        return Reason.Success
      case 10:
        return channelID === this.uid ? Reason.Success : Reason.NotMember
      case 11: {
        const pair = channelID.split('@')
        return pair.length === 2 && pair.every((uid) => uid !== '') && pair.includes(this.uid) ? Reason.Success : Reason.NotAllowed
      }
      default:
        if (channelType !== 2 || channelID !== 'team') return Reason.NoChannel
        return this.#world.members.includes(this.uid) ? Reason.Success : Reason.NotMember
    }
  }

  #ends(end: ExpectedEnd, label: string): void {
    this.classes.add(`${this.state} ended: ${label}`)
    this.state = 'ended'
    this.end = end
  }
}

/** What a SUBACK must say: the words of its SUB, and that there are no data channels. */
function subackTo({ flags, subNo, channelID, channelType, action }: ReferenceFrame): string {
  return JSON.stringify([flags, subNo, channelID, channelType, action, Reason.NoDataChannels])
}

/** No `@`, `#`, `&`, no control characters, not blank, and not named like somebody's commands. */
function isUID(text: string): boolean {
  return isChannelID(text) && !text.includes('@') && !text.endsWith('____cmd')
}

function isChannelID(text: string): boolean {
  return text.trim() !== '' && ![...text].some((letter) => '#&'.includes(letter) || letter < ' ' || letter === '\u007f')
}
