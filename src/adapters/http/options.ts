import { validateHeaderName, validateHeaderValue } from 'node:http'
import { badOption } from '../../errors.ts'

/** Headers that are ours to set. */
const OURS = new Set([
  'connection', 'content-length', 'content-type', 'expect', 'host', 'transfer-encoding', 'upgrade', 'webhook-id', 'webhook-signature', 'webhook-timestamp',
])

/** The URL is not quoted in the error: it may hold a password, which Node decodes, and fails to, with every call. */
export function checkedURL(name: string, url: unknown): URL {
  const parsed = typeof url === 'string' || url instanceof URL ? parse(String(url)) : undefined
  if (parsed?.protocol !== 'http:' && parsed?.protocol !== 'https:') throw new TypeError(`imengine: ${name} must be an absolute http: or https: URL`)
  return parsed
}

function parse(url: string): URL | undefined {
  try {
    const parsed = new URL(url)
    decodeURIComponent(`${parsed.username}:${parsed.password}`)
    return parsed
  } catch {
    return undefined
  }
}

/** Names in lower case. The values are not quoted in errors: one may be a token. */
export function checkedHeaders(name: string, headers: unknown): Readonly<Record<string, string>> {
  if (headers === undefined) return {}
  if (typeof headers !== 'object' || headers === null) badOption(name, 'an object of strings', headers)
  const checked = new Map<string, string>()
  for (const [header, value] of Object.entries(headers)) {
    const lower = header.toLowerCase()
    if (OURS.has(lower)) badOption(name, `without ${lower}, which is set by itself`, header)
    try {
      validateHeaderName(lower)
      validateHeaderValue(lower, value as string)
    } catch {
      throw new TypeError(`imengine: ${name}[${JSON.stringify(header)}] must be text that a header can hold`)
    }
    if (typeof value !== 'string') badOption(`${name}[${JSON.stringify(header)}]`, 'a string', typeof value)
    checked.set(lower, value)
  }
  return Object.fromEntries(checked) // a header may be called __proto__
}
