import type { IncomingMessage, ServerResponse } from 'node:http'
import type { IMEngine } from 'imengine'
import { toStored, type Conversations } from './conversations.ts'
import { bearerToken, readJSON, Refusal, sendJSON } from './http.ts'
import type { People } from './people.ts'
import { MAX_NAME_CHARS, type ChannelRef, type ConversationSummary, type History, type Person, type ServerEvents, type Session, type StoredMessage } from './wire.ts'

const MAX_PAGE_COUNT = 100
const MAX_STREAM_COUNT = 2000
// A page that does not read its stream is cut; it comes back and starts from the whole list.
const MAX_STREAM_BYTES = 1 << 20
const HEARTBEAT_MS = 25_000

export interface APIParts {
  readonly engine: IMEngine
  readonly people: People
  readonly conversations: Conversations
  /** a new user may talk from now on, and one who signed out no longer */
  join(person: Person): Promise<void>
}

type Route = (request: IncomingMessage, response: ServerResponse, url: URL) => Promise<void> | void

/** The host's HTTP side. Messages do not pass here: they travel between the SDK and the engine. */
export class ChatAPI {
  readonly #parts: APIParts
  readonly #streams = new Set<ServerResponse>()
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
  }

  constructor(parts: APIParts) {
    this.#parts = parts
    this.#stopListening = parts.people.onChange((person) => this.#tellAll(event('person', person)))
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
    clearInterval(this.#heartbeat)
    for (const stream of this.#streams) stream.end()
  }

  async #login(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { name, token } = await readJSON(request)
    if (typeof name !== 'string' || (token !== undefined && typeof token !== 'string')) throw badName()
    const result = this.#parts.people.signIn({ name, token })
    if (!result.ok) {
      if (result.why === 'name-taken') throw new Refusal(409, 'name-taken', 'That name is taken. Choose another one.')
      if (result.why === 'full') throw new Refusal(503, 'full', 'This server has no room for more people.')
      throw badName()
    }
    if (result.isNew) await this.#parts.join(result.person)
    const { uid, name: shownName } = result.person
    sendJSON(response, 200, { uid, name: shownName, token: result.token } satisfies Session)
  }

  async #logout(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { uid } = this.#person(request)
    this.#parts.people.signOut(uid)
    response.writeHead(204).end()
  }

  #events(request: IncomingMessage, response: ServerResponse): void {
    this.#person(request)
    if (this.#streams.size >= MAX_STREAM_COUNT) throw new Refusal(503, 'full', 'This server has no room for more people.', { 'retry-after': '10' })
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    response.write(event('people', this.#parts.people.list()))
    this.#streams.add(response)
    response.on('close', () => this.#streams.delete(response))
  }

  #listConversations(request: IncomingMessage, response: ServerResponse): void {
    const { uid } = this.#person(request)
    const conversations = this.#parts.conversations.list(uid).map(
      ([{ channelID, channelType }, { last }]): ConversationSummary => ({
        channelID,
        channelType,
        lastSeq: last?.messageSeq ?? 0,
        readSeq: this.#parts.people.readSeq(uid, `${channelType}:${channelID}`),
        last: last === undefined ? null : toStored(last),
      }),
    )
    sendJSON(response, 200, { conversations })
  }

  /** One page of a conversation: the newest, those before a number, or those after one. Oldest first. */
  async #history(request: IncomingMessage, response: ServerResponse, { searchParams }: URL): Promise<void> {
    const { uid } = this.#person(request)
    const channel = channelRef(searchParams.get('channelID'), wholeNumber(searchParams.get('channelType')))
    const limit = Math.min(MAX_PAGE_COUNT, Math.max(1, wholeNumber(searchParams.get('limit')) ?? MAX_PAGE_COUNT))
    const before = wholeNumber(searchParams.get('before'))
    const after = wholeNumber(searchParams.get('after'))
    const conversation = this.#find(uid, channel)
    const messages: StoredMessage[] = []
    if (conversation !== undefined && before !== 1) {
      const query =
        after !== undefined
          ? ({ startSeq: after + 1, limit, direction: 'forward' } as const)
          : ({ ...(before === undefined ? {} : { startSeq: before - 1 }), limit, direction: 'backward' } as const)
      for await (const message of this.#parts.engine.messages.range(conversation.key, query)) messages.push(toStored(message))
      if (query.direction === 'backward') messages.reverse()
    }
    sendJSON(response, 200, { messages } satisfies History)
  }

  async #markRead(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { uid } = this.#person(request)
    const { channelID, channelType, seq } = await readJSON(request)
    const conversation = this.#find(uid, channelRef(channelID, channelType))
    if (typeof seq !== 'number' || !Number.isInteger(seq) || seq < 0) throw new Refusal(400, 'bad-seq', 'There is no such message.')
    const lastSeq = conversation?.last?.messageSeq ?? 0
    this.#parts.people.markRead(uid, `${String(channelType)}:${String(channelID)}`, Math.min(seq, lastSeq))
    response.writeHead(204).end()
  }

  /** The conversation, undefined while nobody has said anything in it. @throws Refusal 403 when it is not the asker's */
  #find(uid: string, channel: ChannelRef): ReturnType<Conversations['find']> {
    const conversation = this.#parts.conversations.find(uid, channel)
    if (conversation === undefined && !(channel.channelType === 1 && this.#parts.people.has(channel.channelID)))
      throw new Refusal(403, 'not-a-member', 'You are not a member of this conversation.')
    return conversation
  }

  #person(request: IncomingMessage): Person {
    const person = this.#parts.people.byToken(bearerToken(request))
    if (person === undefined) throw new Refusal(401, 'signed-out', 'Your session has ended. Sign in again.', { 'www-authenticate': 'Bearer' })
    return person
  }

  #tellAll(text: string): void {
    for (const stream of this.#streams) {
      if (stream.writableLength > MAX_STREAM_BYTES) stream.destroy()
      else stream.write(text)
    }
  }
}

function event<E extends keyof ServerEvents>(name: E, body: ServerEvents[E]): string {
  return `event: ${name}\ndata: ${JSON.stringify(body)}\n\n`
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
