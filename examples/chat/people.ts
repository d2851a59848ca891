import { randomBytes } from 'node:crypto'
import { WholeFile } from './whole-file.ts'
import { LOBBY, MAX_NAME_CHARS, SYSTEM_UID, type Person } from './wire.ts'

/** What is kept of an account. */
export interface SavedAccount {
  readonly uid: string
  readonly name: string
  readonly token: string
  lastSeenMs: number | null
  signedInMs: number
  left: boolean
}

interface Account extends SavedAccount {
  readonly connectionIDs: Set<string>
  /** connected to another node, where there are several */
  isElsewhere: boolean
}

export type SignIn =
  | { readonly ok: true; readonly person: Person; readonly token: string; readonly isNew: boolean }
  | { readonly ok: false; readonly why: 'bad-name' | 'name-taken' | 'full' }

/** What signing in comes to, or the account that it takes, and whose expired one has to go for it. */
export type SignInPlan = SignIn | { readonly claim: SavedAccount; readonly expiredUID: string | undefined }

/** What the chat asks of whoever keeps its accounts. */
export interface AccountBook {
  open(): Promise<void>
  close(): void
  save(): Promise<void>
  signIn(request: { name: string; token?: string | undefined }): SignIn | Promise<SignIn>
  signOut(uid: string): void | Promise<void>
  byToken(token: string): Person | undefined
  isTokenOf(login: { uid: string; token: string }): boolean
  has(uid: string): boolean
  list(): Person[]
  connected(connection: { uid: string; connectionID: string }): void
  disconnected(connection: { uid: string; connectionID: string }): void
  onChange(listener: (person: Person) => void): () => void
}

export interface PeopleOptions {
  /** accounts in the file, those that left included; default 5000 */
  readonly maxCount?: number
  /** how long the name of someone offline stays theirs, not counting when this server is down; default one day */
  readonly keepNameMs?: number
  readonly nowMs?: () => number
}

// The engine's own voice: nobody signs in as it.
const RESERVED_UIDS = new Set([SYSTEM_UID, LOBBY.channelID])

/**
 * Who is who: names, tokens and who is online. There are no passwords in this example: a name belongs to whoever took it
 * first and is proven by the token they were given, so typing somebody's name does not make you them. A name that is given
 * up may be taken again, but under another uid: the new owner does not inherit the old one's conversations.
 *
 * The engine keeps messages, members and positions; who may use which uid is the host's to know. A host has users in its
 * database, this example has a file that is written with every change.
 */
export class People implements AccountBook {
  readonly #accounts = new Map<string, Account>()
  readonly #byToken = new Map<string, Account>()
  readonly #byName = new Map<string, Account>()
  readonly #listeners = new Set<(person: Person) => void>()
  readonly #maxCount: number
  readonly #keepNameMs: number
  readonly #nowMs: () => number
  readonly #file: WholeFile<{ readonly accounts: readonly SavedAccount[] }> | undefined
  #openedMs = 0

  /** @param path  undefined when somebody else keeps the accounts, and `enter`s them */
  constructor(path: string | undefined, { maxCount = 5000, keepNameMs = 24 * 3_600_000, nowMs = Date.now }: PeopleOptions = {}) {
    this.#file = path === undefined ? undefined : new WholeFile(path, () => ({ accounts: Array.from(this.#accounts.values(), toSaved) }))
    this.#maxCount = maxCount
    this.#keepNameMs = keepNameMs
    this.#nowMs = nowMs
  }

  /** Whom there was when this was saved last. Call it once, and while no other process can. */
  async open(): Promise<void> {
    const saved = await this.#file?.read()
    for (const account of saved?.accounts ?? []) this.#enter(toAccount(account))
    this.#openedMs = this.#nowMs()
  }

  close(): void {
    // The file is open only while it is written.
  }

  /** Everything that has changed is on the disk once resolved. */
  async save(): Promise<void> {
    await this.#file?.save()
  }

  /** Take a free name, or come back to one's own with the token that was given for it. It holds once `save` has resolved. */
  signIn(request: { name: string; token?: string | undefined }): SignIn {
    const plan = this.plan(request)
    if (!('claim' in plan)) return plan
    if (plan.expiredUID !== undefined) this.signOut(plan.expiredUID)
    this.enter(plan.claim)
    return { ok: true, person: toPerson(toAccount(plan.claim)), token: plan.claim.token, isNew: true }
  }

  /** What `signIn` would do: nobody has been taken in or sent away yet. */
  plan({ name, token }: { name: string; token?: string | undefined }): SignInPlan {
    const shownName = cleanName(name)
    if (shownName === undefined) return { ok: false, why: 'bad-name' }
    const holder = this.#byName.get(nameKey(shownName))
    if (holder !== undefined && token !== undefined && token === holder.token) {
      holder.signedInMs = this.#nowMs()
      return { ok: true, person: toPerson(holder), token: holder.token, isNew: false }
    }
    if (holder !== undefined && !this.#isExpired(holder)) return { ok: false, why: 'name-taken' }
    // Accounts that left keep their place: a uid that came free again would open its old conversations to a stranger.
    if (this.#accounts.size >= this.#maxCount) return { ok: false, why: 'full' }
    const claim: SavedAccount = {
      uid: this.#freeUID(shownName),
      name: shownName,
      token: randomBytes(16).toString('hex'),
      lastSeenMs: null,
      signedInMs: this.#nowMs(),
      left: false,
    }
    return { claim, expiredUID: holder?.uid }
  }

  /** Take an account in, unless its uid or its name is taken. */
  enter(claim: SavedAccount): void {
    if (this.#accounts.has(claim.uid) || this.#byName.has(nameKey(claim.name))) return
    const account = toAccount(claim)
    this.#enter(account)
    this.#changed(account)
  }

  /** Give the name up. The token is worth nothing from now on. */
  signOut(uid: string): void {
    const account = this.#accounts.get(uid)
    if (account !== undefined) this.#leave(account)
  }

  byToken(token: string): Person | undefined {
    const account = this.#byToken.get(token)
    return account && toPerson(account)
  }

  isTokenOf({ uid, token }: { uid: string; token: string }): boolean {
    return this.#byToken.get(token)?.uid === uid
  }

  has(uid: string): boolean {
    return this.#accounts.has(uid)
  }

  list(): Person[] {
    return Array.from(this.#accounts.values(), toPerson)
  }

  connected({ uid, connectionID }: { uid: string; connectionID: string }): void {
    const account = this.#accounts.get(uid)
    if (account === undefined) return
    account.connectionIDs.add(connectionID)
    if (account.connectionIDs.size === 1) this.#changed(account)
  }

  disconnected({ uid, connectionID }: { uid: string; connectionID: string }): void {
    const account = this.#accounts.get(uid)
    if (account === undefined || !account.connectionIDs.delete(connectionID)) return
    account.lastSeenMs = this.#nowMs()
    this.save().catch((error: unknown) => console.error('could not save when', uid, 'was here last:', error))
    if (account.connectionIDs.size === 0) this.#changed(account)
  }

  /** Who is connected to other nodes, where there are several. */
  setElsewhere(uids: ReadonlySet<string>): void {
    for (const account of this.#accounts.values()) {
      const isElsewhere = uids.has(account.uid)
      if (account.isElsewhere === isElsewhere) continue
      account.isElsewhere = isElsewhere
      if (!isElsewhere) account.lastSeenMs = this.#nowMs()
      if (account.connectionIDs.size === 0) this.#changed(account)
    }
  }

  /** @returns how to stop listening */
  onChange(listener: (person: Person) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #enter(account: Account): void {
    this.#accounts.set(account.uid, account)
    if (account.left) return
    this.#byToken.set(account.token, account)
    this.#byName.set(nameKey(account.name), account)
  }

  #changed(account: Account): void {
    const person = toPerson(account)
    for (const listener of this.#listeners) listener(person)
  }

  #leave(account: Account): void {
    if (account.left) return
    account.left = true
    this.#byToken.delete(account.token)
    this.#byName.delete(nameKey(account.name))
    this.#changed(account)
  }

  #isExpired(account: Account): boolean {
    // Whoever was here when the server went down has had no chance to say so since.
    const sinceMs = Math.max(account.lastSeenMs ?? 0, account.signedInMs, this.#openedMs)
    return !isOnline(account) && this.#nowMs() - sinceMs > this.#keepNameMs
  }

  #freeUID(name: string): string {
    const base = uidBase(name)
    if (!this.#accounts.has(base) && !RESERVED_UIDS.has(base)) return base
    let count = 2
    while (this.#accounts.has(`${base}-${count}`)) count++
    return `${base}-${count}`
  }
}

function toAccount(saved: SavedAccount): Account {
  return { ...saved, connectionIDs: new Set(), isElsewhere: false }
}

function isOnline({ connectionIDs, isElsewhere }: Account): boolean {
  return connectionIDs.size > 0 || isElsewhere
}

function toPerson(account: Account): Person {
  const { uid, name, lastSeenMs, left } = account
  const online = isOnline(account)
  return { uid, name, online, lastSeenMs: online ? null : lastSeenMs, left }
}

function toSaved({ uid, name, token, lastSeenMs, signedInMs, left }: Account): SavedAccount {
  return { uid, name, token, lastSeenMs, signedInMs, left }
}

/** One line of visible text, or undefined. Control and invisible characters would let two names look the same. */
function cleanName(name: string): string | undefined {
  const text = name.normalize('NFC').replace(/\s+/gu, ' ').trim()
  if (text === '' || text.length > MAX_NAME_CHARS || /\p{C}/u.test(text)) return undefined
  return /[\p{L}\p{N}]/u.test(text) ? text : undefined
}

/** Names of one key are one name. */
export function nameKey(name: string): string {
  return name.normalize('NFKC').toLowerCase()
}

/** ASCII letters, digits and dashes only: some SDKs mis-frame anything else, and the protocol forbids `@`, `#` and `&`. */
function uidBase(name: string): string {
  const ascii = name
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
  return ascii.slice(0, 24).replace(/^-+|-+$/g, '') || 'user'
}
