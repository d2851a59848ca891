import type { ChannelRef, ConversationSummary, Failure, History, LoginRequest, RecallRequest, ServerEvents, Session } from '../../wire.ts'

// A request that a server took with it into its grave must not hold up what comes after.
const REQUEST_TIMEOUT_MS = 15_000

/** An answer that was not 2xx, with the server's words for people. */
export class APIError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export async function login(request: LoginRequest): Promise<Session> {
  return (await call('POST', '/api/login', { body: request })) as Session
}

/** The host's HTTP side: who is there and what was said. Messages themselves travel through the SDK. */
export class API {
  readonly #token: string

  constructor(token: string) {
    this.#token = token
  }

  async logout(): Promise<void> {
    await call('POST', '/api/logout', { token: this.#token, body: {} })
  }

  async conversations(): Promise<readonly ConversationSummary[]> {
    const { conversations } = (await call('GET', '/api/conversations', { token: this.#token })) as { conversations: ConversationSummary[] }
    return conversations
  }

  async history({ channelID, channelType }: ChannelRef, page: { before?: number; after?: number; limit: number }): Promise<History> {
    const query = new URLSearchParams({ channelID, channelType: String(channelType), limit: String(page.limit) })
    if (page.before !== undefined) query.set('before', String(page.before))
    if (page.after !== undefined) query.set('after', String(page.after))
    return (await call('GET', `/api/history?${query.toString()}`, { token: this.#token })) as History
  }

  async markRead({ channelID, channelType }: ChannelRef, seq: number): Promise<void> {
    await call('POST', '/api/read', { token: this.#token, body: { channelID, channelType, seq } })
  }

  async recall(messageID: string): Promise<void> {
    await call('POST', '/api/recall', { token: this.#token, body: { messageID } satisfies RecallRequest })
  }

  /**
   * Follow who is there and which messages change, for as long as the page lives. Not an EventSource, because that cannot send the token in a header
   * and an address with a token in it ends up in logs.
   */
  async follow(handlers: { [E in keyof ServerEvents]: (body: ServerEvents[E]) => void }, signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        const response = await fetch('/api/events', { headers: { authorization: `Bearer ${this.#token}` }, signal })
        if (response.status === 401) return
        if (response.ok && response.body !== null) {
          for await (const { event, data } of serverSentEvents(response.body)) {
            failures = 0
            if (Object.hasOwn(handlers, event)) handlers[event as keyof ServerEvents](JSON.parse(data) as never)
          }
        }
      } catch {
        // The server is away or the network is: the same wait and another try either way.
      }
      await wait(Math.min(10_000, 500 * 2 ** failures), signal)
    }
  }
}

async function call(method: string, path: string, { token, body }: { token?: string; body?: unknown } = {}): Promise<unknown> {
  const headers: Record<string, string> = {}
  if (token !== undefined) headers.authorization = `Bearer ${token}`
  if (body !== undefined) headers['content-type'] = 'application/json'
  let response: Response
  try {
    response = await fetch(path, { method, headers, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
  } catch {
    throw new APIError(0, 'The server does not answer. Check the connection and try again.')
  }
  if (response.status === 204) return undefined
  const answer: unknown = await response.json().catch(() => undefined)
  if (!response.ok) throw new APIError(response.status, (answer as Partial<Failure> | undefined)?.message ?? `The server answered ${response.status}.`)
  return answer
}

async function* serverSentEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<{ event: string; data: string }> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const blocks = (rest + decoder.decode(value, { stream: true })).split('\n\n')
      rest = blocks.pop() ?? ''
      for (const block of blocks) {
        const field = (name: string): string | undefined =>
          block.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
        const event = field('event')
        const data = field('data')
        if (event !== undefined && data !== undefined) yield { event, data }
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
  })
}
