/**
 * Keys and values of presence in its bucket. `u.<node>.<user>` holds the connections of one user on one node, `h.<node>` says that
 * a node lives, and in which of its generations; `t` tells the servers' time. A user whose id is too long for a subject goes by
 * its hash, and the value says who it is.
 */
import { createHash } from 'node:crypto'

/** A connection as its node tells it: id, kind of device, level. */
export interface AnnouncedConnection {
  readonly connectionID: string
  readonly deviceFlag: number
  readonly deviceLevel: number
}

/** What `u.…` holds. */
export interface Announcement {
  readonly generation: string
  /** of users that go by their hash */
  readonly uid: string | undefined
  /** as it came: unpacked when somebody asks for devices, which is rarer than a message by far */
  readonly packed: string
}

/** What `h.…` holds: '' is a node that has left or was declared dead. */
export interface Beat {
  readonly generation: string
  /** until the next one, in milliseconds; 0: not known yet */
  readonly intervalMs: number
}

export type PresenceKey =
  | { readonly kind: 'user'; readonly nodeID: number; readonly suffix: string; /** undefined: it goes by its hash */ readonly uid: string | undefined }
  | { readonly kind: 'node'; readonly nodeID: number }
  | { readonly kind: 'time' }

export const TIME_KEY = 't'

/** Far below the 4 096 bytes that a server takes for a subject and what stands beside it. */
const MAX_PLAIN_UID_BYTES = 192

export function nodeKey(nodeID: number): string {
  return `h.${nodeID}`
}

export function userKey(nodeID: number, uid: string): string {
  return `u.${nodeID}.${suffixOf(uid)}`
}

export function isHashed(uid: string): boolean {
  return Buffer.byteLength(uid) > MAX_PLAIN_UID_BYTES
}

function suffixOf(uid: string): string {
  return isHashed(uid) ? `=${createHash('sha256').update(uid).digest('base64url')}` : `_${Buffer.from(uid).toString('base64url')}`
}

/** undefined: not one of ours */
export function parseKey(key: string): PresenceKey | undefined {
  if (key === TIME_KEY) return { kind: 'time' }
  const [kind, node, suffix, more] = key.split('.')
  const nodeID = Number(node)
  if (!Number.isSafeInteger(nodeID) || nodeID < 0 || node === '') return undefined
  if (kind === 'h' && suffix === undefined) return { kind: 'node', nodeID }
  if (kind !== 'u' || suffix === undefined || suffix.length < 1 || more !== undefined) return undefined
  const uid = suffix.startsWith('_') ? Buffer.from(suffix.slice(1), 'base64url').toString() : undefined
  return { kind: 'user', nodeID, suffix, uid }
}

export function encodeAnnouncement(generation: string, uid: string, connections: Iterable<AnnouncedConnection>): string {
  const fields: (string | number)[] = []
  for (const { connectionID, deviceFlag, deviceLevel } of connections) fields.push(connectionID, deviceFlag, deviceLevel)
  return `${generation}\n${isHashed(uid) ? JSON.stringify(uid) : ''}\n${JSON.stringify(fields)}`
}

/** undefined: not one of ours */
export function decodeAnnouncement(text: string): Announcement | undefined {
  const [generation, uid, fields, more] = text.split('\n')
  if (generation === undefined || generation === '' || uid === undefined || fields === undefined || more !== undefined) return undefined
  if (unpack(text) === undefined) return undefined
  try {
    const name: unknown = uid === '' ? undefined : JSON.parse(uid)
    return name === undefined || typeof name === 'string' ? { generation, uid: name, packed: text } : undefined
  } catch {
    return undefined
  }
}

/** The connections of an announcement, as its text. undefined: there are none in it */
export function unpack(packed: string): AnnouncedConnection[] | undefined {
  let fields: unknown
  try {
    fields = JSON.parse(packed.slice(packed.lastIndexOf('\n') + 1))
  } catch {
    return undefined
  }
  if (!Array.isArray(fields) || fields.length % 3 !== 0) return undefined
  const connections: AnnouncedConnection[] = []
  for (let i = 0; i < fields.length; i += 3) {
    const [connectionID, deviceFlag, deviceLevel] = fields.slice(i, i + 3) as unknown[]
    if (typeof connectionID !== 'string' || typeof deviceFlag !== 'number' || typeof deviceLevel !== 'number') return undefined
    connections.push({ connectionID, deviceFlag, deviceLevel })
  }
  return connections
}

export function encodeBeat({ generation, intervalMs }: Beat): string {
  return `${generation}\n${intervalMs}`
}

/** undefined: not one of ours */
export function decodeBeat(text: string): Beat | undefined {
  const match = /^([\w-]{0,64})\n(\d{1,9})$/.exec(text)
  return match === null ? undefined : { generation: match[1]!, intervalMs: Number(match[2]) }
}
