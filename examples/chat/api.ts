import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { ChannelType, personChannelID, personChannelUIDs, type ChannelKey, type Conversation, type Facts, type IMEngine } from 'imengine'
import { toStored } from './content.ts'
import { bearerToken, cookie, readJSON, Refusal, sendJSON } from './http.ts'
import { nameKey, type AccountBook } from './people.ts'
import { LOBBY, MAX_NAME_CHARS, type ChannelRef, type ConversationSummary, type History, type Person, type ServerEvents, type Session } from './wire.ts'

const MAX_PAGE_COUNT = 100
const MAX_STREAM_COUNT = 2000
// A page that does not read its stream is cut; it comes back and starts from the whole list.
const MAX_STREAM_BYTES = 1 << 20
const HEARTBEAT_MS = 25_000

export interface APIParts {
  readonly engine: IMEngine
  readonly people: AccountBook
  /** the chat has several addresses: a browser that has signed in at one may use the same names at the others */
  readonly hasSeveralAddresses: boolean
  /** a new user may talk from now on */
  join(person: Person): Promise<void>
}

type Route = (request: IncomingMessage, response: ServerResponse, url: URL) => Promise<void> | void

/** The host's HTTP side. Messages do not pass here: they travel between the SDK and the engine. */
export class ChatAPI {
  readonly #parts: APIParts
  /** with whose they are */
  readonly #streams = new Map<ServerResponse, string>()
  readonly #stopListening: () => void
  readonly #heartbeat: ReturnType<typeof setInterval>
  readonly #routes: Readonly<Record<string, Readonly<Record<string, Route>>>> = {
    '/api/login': { POST: (request, response) => this.#login(request, response) },
    '/api/logout': { POST: (request, response) => this.#logout(request, response) },
    '/api/people': { GET: (request, response) => (this.#person(request), sendJSON(response, 200, { people: this.#parts.people.list() })) },
    '/api/events': { GET: (request, response) => this.#events(request, response) },
    '/api/conversations': { GET: (request, response) => this.#listConversations(request, response) },
    '/api/history': { GET: (request, response, url) => this.#history(request, response, url) },
    '/api/read': { POST: (request, response) => this.#markRead(request, response) },
    '/api/recall': { POST: (request, response) => this.#recall(request, response) },
  }

  constructor(parts: APIParts) {
    this.#parts = parts
    this.#stopListening = parts.people.onChange((person) => {
      this.#tellAll(event('person', person))
      if (person.left) for (const [stream, uid] of this.#streams) if (uid === person.uid) stream.end()
    })
    // The engine tells clients of protocol version 5 by itself. The SDK of this page speaks an older one.
    parts.engine.on('messageRevised', this.#tellRevised)
    this.#heartbeat = setInterval(() => this.#tellAll(':\n\n'), HEARTBEAT_MS)
    this.#heartbeat.unref()
  }

  /** @throws Refusal, to be sent as the answer */
  async handle(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const methods = Object.hasOwn(this.#routes, url.pathname) ? this.#routes[url.pathname] : undefined
    if (methods === undefined) throw new Refusal(404, 'not-found', 'There is nothing here.')
    const route = Object.hasOwn(methods, request.method ?? '') ? methods[request.method ?? ''] : undefined
    if (route === undefined) throw new Refusal(405, 'bad-method', 'This is not how to ask for it.', { allow: Object.keys(methods).join(', ') })
    await route(request, response, url)
  }

  close(): void {
    this.#stopListening()
    this.#parts.engine.off('messageRevised', this.#tellRevised)
    clearInterval(this.#heartbeat)
    for (const stream of this.#streams.keys()) stream.end()
  }

  async #login(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { name, token } = await readJSON(request)
    if (typeof name !== 'string' || (token !== undefined && typeof token !== 'string')) throw badName()
    // The page keeps its tokens for each address; cookies of one host are the same on all of its ports.
    const { hasSeveralAddresses } = this.#parts
    const result = await this.#parts.people.signIn({ name, token: token ?? (hasSeveralAddresses ? cookie(request, cookieName(name)) : undefined) })
    if (!result.ok) {
      if (result.why === 'name-taken') throw new Refusal(409, 'name-taken', 'That name is taken. Choose another one.')
      if (result.why === 'full') throw new Refusal(503, 'full', 'This server has no room for more people.')
      throw badName()
    }
    try {
      if (result.isNew) await this.#parts.join(result.person)
      await this.#parts.people.save()
    } catch (error) {
      // Nobody has been given the token: the name is free for the next try.
      if (result.isNew) await this.#parts.people.signOut(result.person.uid)
      throw error
    }
    const { uid, name: shownName } = result.person
    if (hasSeveralAddresses) {
      response.setHeader('set-cookie', `${cookieName(shownName)}=${result.token}; Max-Age=86400; Path=/api/login; HttpOnly; SameSite=Strict`)
    }
    sendJSON(response, 200, { uid, name: shownName, token: result.token } satisfies Session)
  }

  async #logout(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { uid } = this.#person(request)
    await this.#parts.people.signOut(uid)
    await this.#parts.people.save()
    response.writeHead(204).end()
  }

  #events(request: IncomingMessage, response: ServerResponse): void {
    const { uid } = this.#person(request)
    if (this.#streams.size >= MAX_STREAM_COUNT) throw new Refusal(503, 'full', 'This server has no room for more people.', { 'retry-after': '10' })
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    response.write(event('people', this.#parts.people.list()))
    this.#streams.set(response, uid)
    response.on('close', () => this.#streams.delete(response))
  }

  /** What the engine knows by itself: who has talked with whom, how far they have read, and what came after. */
  async #listConversations(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { uid } = this.#person(request)
    const conversations: ConversationSummary[] = []
    let cursor: string | undefined
    do {
      const page = await this.#parts.engine.conversations.list(uid, { limit: 500, ...(cursor === undefined ? {} : { cursor }) })
      conversations.push(...page.items.map(toSummary))
      cursor = page.cursor
    } while (cursor !== undefined)
    sendJSON(response, 200, { conversations })
  }

  /** One page of a conversation: the newest, those before a number, or those after one. Oldest first. */
  async #history(request: IncomingMessage, response: ServerResponse, { searchParams }: URL): Promise<void> {
    const { uid } = this.#person(request)
    const channel = channelRef(searchParams.get('channelID'), wholeNumber(searchParams.get('channelType')))
    const limit = Math.min(MAX_PAGE_COUNT, Math.max(1, wholeNumber(searchParams.get('limit')) ?? MAX_PAGE_COUNT))
    const before = wholeNumber(searchParams.get('before'))
    const after = wholeNumber(searchParams.get('after'))
    const key = await this.#key(uid, channel)
    // `startSeq` 0 means the newest page, so what lies below number 1 is not asked for.
    const query =
      after !== undefined
        ? ({ startSeq: after + 1, direction: 'forward' } as const)
        : ({ startSeq: before === undefined ? 0 : before - 1, direction: 'backward' } as const)
    const { messages } = before === 1 ? { messages: [] } : await this.#parts.engine.messages.sync(key, { ...query, limit, forUID: uid })
    sendJSON(response, 200, { messages: messages.map(toStored) } satisfies History)
  }

  async #markRead(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { uid } = this.#person(request)
    const { channelID, channelType, seq } = await readJSON(request)
    const key = await this.#key(uid, channelRef(channelID, channelType))
    if (typeof seq !== 'number' || !Number.isSafeInteger(seq) || seq < 0) throw new Refusal(400, 'bad-seq', 'There is no such message.')
    await this.#parts.engine.conversations.markRead(uid, key, { seq })
    response.writeHead(204).end()
  }

  /** Take a message back, for everybody who has it. */
  async #recall(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { uid } = this.#person(request)
    const { messageID } = await readJSON(request)
    const isID = typeof messageID === 'string' && /^\d{1,19}$/.test(messageID)
    const [message] = isID ? await this.#parts.engine.messages.get([messageID]) : []
    if (message?.fromUID !== uid) throw new Refusal(404, 'no-such-message', 'There is no such message of yours.')
    await this.#parts.engine.messages.recall(message.messageID, { byUID: uid })
    response.writeHead(204).end()
  }

  /**
   * The channel that `uid` calls so, as the engine knows it. A person's is made with the asker's own uid, so there is no way
   * to name one between two others. @throws Refusal 403 when it is not the asker's
   */
  async #key(uid: string, { channelID, channelType }: ChannelRef): Promise<ChannelKey> {
    const { engine, people } = this.#parts
    if (channelType === ChannelType.Person && /^[\w-]{1,100}$/.test(channelID)) {
      const key = { channelID: personChannelID(uid, channelID), channelType }
      if (people.has(channelID) || (await engine.messages.lastSeq(key)) > 0) return key
    }
    if (channelType === ChannelType.Group && channelID === LOBBY.channelID) {
      const { items } = await engine.channels.of(uid)
      if (items.some((key) => key.channelType === channelType && key.channelID === channelID)) return { channelID, channelType }
    }
    throw new Refusal(403, 'not-a-member', 'You are not a member of this conversation.')
  }

  #person(request: IncomingMessage): Person {
    const person = this.#parts.people.byToken(bearerToken(request))
    if (person === undefined) throw new Refusal(401, 'signed-out', 'Your session has ended. Sign in again.', { 'www-authenticate': 'Bearer' })
    return person
  }

  /** To those who may read it: the two of a person channel, each under the other's name, and everybody for the lobby. */
  readonly #tellRevised = ({ key, message }: Facts['messageRevised'][0]): void => {
    const stored = toStored(message)
    const uids = key.channelType === ChannelType.Person ? personChannelUIDs(key.channelID) : undefined
    if (uids === undefined && key.channelID !== LOBBY.channelID) return
    for (const [stream, uid] of this.#streams) {
      const channelID = uids === undefined ? key.channelID : uids[0] === uid ? uids[1] : uids[0]
      if (uids?.includes(uid) ?? true) this.#tell(stream, event('revised', { channel: { channelID, channelType: key.channelType }, message: stored }))
    }
  }

  #tellAll(text: string): void {
    for (const stream of this.#streams.keys()) this.#tell(stream, text)
  }

  #tell(stream: ServerResponse, text: string): void {
    if (stream.writableLength > MAX_STREAM_BYTES) stream.destroy()
    else stream.write(text)
  }
}

function toSummary({ channelID, channelType, lastSeq, readSeq, unread, lastMessage }: Conversation): ConversationSummary {
  return { channelID, channelType, lastSeq, readSeq, unread, last: lastMessage === undefined ? null : toStored(lastMessage) }
}

function event<E extends keyof ServerEvents>(name: E, body: ServerEvents[E]): string {
  return `event: ${name}\ndata: ${JSON.stringify(body)}\n\n`
}

function cookieName(name: string): string {
  return `chat-${createHash('sha256').update(nameKey(name.trim())).digest('hex').slice(0, 16)}`
}

function badName(): Refusal {
  return new Refusal(400, 'bad-name', `Choose a name of 1 to ${MAX_NAME_CHARS} characters with at least one letter or digit.`)
}

function channelRef(channelID: unknown, channelType: unknown): ChannelRef {
  if (typeof channelID !== 'string' || typeof channelType !== 'number') throw new Refusal(400, 'bad-channel', 'Name a conversation by channelID and channelType.')
  return { channelID, channelType }
}

/** A query parameter that counts something; undefined when it is missing. @throws Refusal 400 for anything else */
function wholeNumber(text: string | null): number | undefined {
  if (text === null) return undefined
  if (!/^\d{1,10}$/.test(text)) throw new Refusal(400, 'bad-number', 'A number in the address is not one.')
  return Number(text)
}
