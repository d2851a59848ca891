import { createHash } from 'node:crypto'
import { ChannelType, type IMEngine } from 'imengine'
import { People, type AccountBook, type PeopleOptions, type SavedAccount, type SignIn } from './people.ts'
import { SYSTEM_UID, type Person } from './wire.ts'

/** One step in the life of an account. */
type Entry = { readonly claim: SavedAccount } | { readonly leftUID: string }

/** A group of nobody: clients can neither read nor write it. */
const JOURNAL = { channelID: 'accounts', channelType: ChannelType.Group }

/** How often it is asked who is connected to the other nodes. */
const LOOK_EVERY_MS = 1_000

/** Claims of one name at the same time are few. */
const MAX_TRIES = 5

/**
 * The same as `People`, for a chat of several nodes: what happens to accounts are messages of a channel that only the server
 * writes. All nodes have it in one order, so that of two who take a name at the same time one is first on every node, and who has signed in
 * at one node is known to all of them. Of a token the journal has the digest only.
 *
 * When somebody was seen last is what this node has seen of it: it is not written down.
 */
export class SharedPeople implements AccountBook {
  readonly #engine: IMEngine
  readonly #people: People
  #readSeq = 0
  #reading: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(engine: IMEngine, options?: PeopleOptions) {
    this.#engine = engine
    this.#people = new People(undefined, options)
  }

  async open(): Promise<void> {
    await this.#engine.channels.create(JOURNAL)
    this.#engine.on('messageStored', ({ key }) => {
      if (key.channelID !== JOURNAL.channelID || key.channelType !== JOURNAL.channelType) return
      this.#read().catch((error: unknown) => console.error('could not read the accounts:', error))
    })
    await this.#read()
    await this.#people.open()
    this.#timer = setTimeout(() => void this.#look(), LOOK_EVERY_MS)
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  async save(): Promise<void> {
    // What has been written is in the log already.
  }

  async signIn({ name, token }: { name: string; token?: string | undefined }): Promise<SignIn> {
    for (let tryCount = 0; tryCount < MAX_TRIES; tryCount++) {
      const plan = this.#people.plan({ name, token: token === undefined ? undefined : digestOf(token) })
      if (!('claim' in plan)) return plan.ok ? { ...plan, token: token! } : plan
      if (plan.expiredUID !== undefined) await this.signOut(plan.expiredUID)
      const claim = { ...plan.claim, token: digestOf(plan.claim.token) }
      await this.#write({ claim })
      const person = this.#people.byToken(claim.token)
      if (person !== undefined) return { ok: true, person, token: plan.claim.token, isNew: true }
      // Somebody else's claim of the same name, or uid, came first.
    }
    return { ok: false, why: 'name-taken' }
  }

  async signOut(uid: string): Promise<void> {
    await this.#write({ leftUID: uid })
  }

  byToken(token: string): Person | undefined {
    return this.#people.byToken(digestOf(token))
  }

  isTokenOf({ uid, token }: { uid: string; token: string }): boolean {
    return this.#people.isTokenOf({ uid, token: digestOf(token) })
  }

  has(uid: string): boolean {
    return this.#people.has(uid)
  }

  list(): Person[] {
    return this.#people.list()
  }

  connected(connection: { uid: string; connectionID: string }): void {
    this.#people.connected(connection)
  }

  disconnected(connection: { uid: string; connectionID: string }): void {
    this.#people.disconnected(connection)
  }

  onChange(listener: (person: Person) => void): () => void {
    return this.#people.onChange(listener)
  }

  /** Resolves when it holds on this node. */
  async #write(entry: Entry): Promise<void> {
    await this.#engine.messages.send({ ...JOURNAL, fromUID: SYSTEM_UID, payload: Buffer.from(JSON.stringify(entry)) })
    await this.#read()
  }

  /** Everything that is in the journal now, in its order, each entry once. */
  #read(): Promise<void> {
    const reading = this.#reading.then(async () => {
      for await (const { messageSeq, payload } of this.#engine.messages.range(JOURNAL, { startSeq: this.#readSeq + 1 })) {
        const entry = JSON.parse(Buffer.from(payload).toString()) as Entry
        if ('claim' in entry) this.#people.enter(entry.claim)
        else this.#people.signOut(entry.leftUID)
        this.#readSeq = messageSeq
      }
    })
    this.#reading = reading.catch(() => undefined)
    return reading
  }

  async #look(): Promise<void> {
    const { nodeID, presence, limits } = this.#engine
    const uids = this.#people.list().flatMap(({ uid, left }) => (left ? [] : [uid]))
    const elsewhere = new Set<string>()
    try {
      for (let first = 0; first < uids.length; first += limits.maxMembersPerCall) {
        for (const { uid, devices } of await presence.query(uids.slice(first, first + limits.maxMembersPerCall))) {
          if (devices.some((device) => device.nodeID !== nodeID)) elsewhere.add(uid)
        }
      }
      this.#people.setElsewhere(elsewhere)
    } catch (error) {
      if (!this.#isClosed) console.error('could not see who is online elsewhere:', error)
    }
    if (!this.#isClosed) this.#timer = setTimeout(() => void this.#look(), LOOK_EVERY_MS)
  }
}

/** Tokens are random and long, so that a plain digest gives nothing away. */
function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}
