import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Failure } from './wire.ts'

/** An answer that is not 2xx, thrown from wherever it becomes clear. `message` is for people. */
export class Refusal extends Error {
  readonly status: number
  readonly error: string
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, error: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.status = status
    this.error = error
    this.headers = headers
  }
}

const MAX_BODY_BYTES = 4096

/**
 * Everything the page needs is served from here and nothing else may be loaded; no markup can be made from text
 * (trusted types), no other page may frame this one.
 */
export const SECURITY_HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
} as const

export function sendJSON(response: ServerResponse, status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): void {
  const text = Buffer.from(JSON.stringify(body))
  response.writeHead(status, { ...headers, 'content-type': 'application/json; charset=utf-8', 'content-length': text.length, 'cache-control': 'no-store' })
  response.end(text)
}

/** The answer to a request that failed: a refusal as it says, anything else as our mistake, without details. */
export function sendFailure(response: ServerResponse, failure: unknown): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  const refusal = failure instanceof Refusal ? failure : new Refusal(500, 'internal', 'The server had a problem. Try again.')
  const { status, error, message, headers } = refusal
  sendJSON(response, status, { error, message } satisfies Failure, headers)
}

/** The JSON object in a request's body. @throws Refusal 400, 413 or 415 */
export async function readJSON(request: IncomingMessage): Promise<Record<string, unknown>> {
  // A form on another site cannot send this type without asking first.
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) throw new Refusal(415, 'not-json', 'Send the body as application/json.')
  const tooLarge = (): Refusal => new Refusal(413, 'too-large', `The body may have ${MAX_BODY_BYTES} bytes.`, { connection: 'close' })
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) throw tooLarge()
  const chunks: Buffer[] = []
  let byteCount = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    byteCount += chunk.length
    if (byteCount > MAX_BODY_BYTES) throw tooLarge()
    chunks.push(chunk)
  }
  let body: unknown
  try {
    body = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks)))
  } catch {
    throw new Refusal(400, 'bad-json', 'The body is not JSON.')
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new Refusal(400, 'bad-json', 'The body is not a JSON object.')
  return body as Record<string, unknown>
}

/** The token of `Authorization: Bearer …`, empty for none. */
export function bearerToken(request: IncomingMessage): string {
  return /^Bearer ([A-Za-z0-9]+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
}

/** A cookie's value, undefined for none. */
export function cookie(request: IncomingMessage, name: string): string | undefined {
  const found = (request.headers.cookie ?? '').split(';').find((pair) => pair.trim().startsWith(`${name}=`))
  return found?.trim().slice(name.length + 1)
}
