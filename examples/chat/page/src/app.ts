import type { ChannelRef, Session } from '../../wire.ts'
import { API } from './api.ts'
import { IM } from './im.ts'
import { endSession, loadOutbox, saveOutbox } from './session.ts'
import { endOfRun, firstStored, Store, type ChatMessage, type Conversation, type Link } from './store.ts'

const AUTH_FAIL = 2
const PAGE_COUNT = 40
// Further behind than this, the newest page is loaded again instead of everything in between.
const MAX_CATCH_UP_COUNT = 400
const SYNC_AGAIN_MS = 3000

/** What the page can do, and where its data comes from: live messages by the SDK, the past and the people by HTTP. */
export class App {
  readonly session: Session
  readonly store: Store
  readonly #api: API
  readonly #im: IM
  readonly #life = new AbortController()
  readonly #readTimers = new Map<string, ReturnType<typeof setTimeout>>()
  readonly #catchUps = new Map<string, Promise<void>>()
  #follows = false

  constructor(session: Session) {
    this.session = session
    this.store = new Store(session.uid)
    this.#api = new API(session.token)
    this.#im = new IM({
      addr: `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`,
      uid: session.uid,
      token: session.token,
      pull: this.#api,
      onLink: (link) => this.#onLink(link),
      onMessage: (message) => {
        if (this.store.receive(message) === 'gap') this.#fillGaps(this.store.conversation(message.channel))
      },
      onAck: (ack) => this.store.acknowledge(ack),
    })
  }

  start(): void {
    const { store } = this
    for (const { channel, clientMsgNo, text, timestampMs, failedWith } of loadOutbox()) {
      store.addOwn(channel, { clientMsgNo, text, timestampMs })
      if (failedWith === undefined) this.#im.sendText(channel, { clientMsgNo, text })
      else store.acknowledge({ clientMsgNo, messageID: '', messageSeq: 0, reasonCode: failedWith })
    }
    store.onChange(() => saveOutbox(store.undelivered()))
    void this.#api.follow({
      people: (people) => {
        store.people.clear()
        for (const person of people) store.setPerson(person)
        // The stream begins anew: what was revised meanwhile, nobody has told.
        if (this.#follows) this.#readAgain()
        this.#follows = true
      },
      person: (person) => store.setPerson(person),
      revised: ({ channel, message }) => store.revise(this.#im.read(channel, message)),
    }, this.#life.signal)
    this.#im.connect()
  }

  /** Show one conversation, or none (the list, on a phone). */
  open(channel: ChannelRef | undefined): void {
    const { store } = this
    const conversation = channel && store.conversation(channel)
    if (store.openID === conversation?.id) return
    store.openID = conversation?.id
    store.changed()
    if (conversation !== undefined && (conversation.history === 'unknown' || conversation.history === 'failed')) void this.loadOlder(conversation)
  }

  send(text: string): void {
    const { open } = this.store
    if (open === undefined) return
    const message = this.store.addOwn(open, { clientMsgNo: newClientMsgNo(), text, timestampMs: Date.now() })
    this.#im.sendText(open, message)
  }

  /** Try a refused message again, as the same message: had it been stored after all, it is not stored twice. */
  retry(clientMsgNo: string): void {
    const found = this.store.findOwn(clientMsgNo)
    if (found === undefined) return
    this.store.markSending(clientMsgNo)
    this.#im.sendText(found.conversation, found.message)
  }

  /** Take one's own message back. That it is gone comes back over the stream, here as to everybody else. */
  async recall({ messageID }: ChatMessage): Promise<void> {
    await this.#api.recall(messageID)
  }

  discard(clientMsgNo: string): void {
    this.store.discard(clientMsgNo)
  }

  /** The page before the oldest message at hand; the newest page when there is none. */
  async loadOlder(conversation: Conversation): Promise<void> {
    if (conversation.history === 'loading' || conversation.history === 'complete') return
    const { history: before } = conversation
    conversation.history = 'loading'
    this.store.changed()
    try {
      const first = before === 'unknown' ? undefined : firstStored(conversation)
      const { messages, more } = await this.#im.messages(conversation, {
        ...(first === undefined ? {} : { before: first.messageSeq }),
        limit: PAGE_COUNT,
      })
      if (first === undefined) this.store.addNewestPage(conversation, messages)
      else this.store.addPage(conversation, messages)
      conversation.history = more ? 'partial' : 'complete'
    } catch {
      conversation.history = 'failed'
    }
    this.store.changed()
    // What has become known since this was asked for does not all come by itself.
    this.#fillGaps(conversation)
  }

  /** Everything in the conversation has been on the screen. The server is told at most once a second, for after the next start. */
  markRead(conversation: Conversation): void {
    if (this.store.unreadCount(conversation) === 0) return
    this.store.markRead(conversation, conversation.lastSeq)
    this.#tellRead(conversation)
  }

  #tellRead(conversation: Conversation): void {
    if (this.#readTimers.has(conversation.id)) return
    const timer = setTimeout(() => {
      this.#readTimers.delete(conversation.id)
      // Lost, it is said again at the next connect, or with the next message that is read.
      this.#api.markRead(conversation, conversation.readSeq).catch(() => undefined)
    }, 1000)
    this.#readTimers.set(conversation.id, timer)
  }

  /** Give the name up, and start from a clean page. */
  async signOut(): Promise<void> {
    this.#life.abort()
    this.#im.disconnect()
    await this.#api.logout().catch(() => undefined)
    endSession()
  }

  #onLink(link: Link): void {
    this.store.link = link
    this.store.changed()
    if (link.state === 'online') void this.#sync()
    if (link.state === 'kicked' || link.state === 'refused') this.#life.abort()
    // The server no longer knows this token: the name was given up in another tab, or taken over when it was not used for long.
    if (link.state === 'refused' && link.reasonCode === AUTH_FAIL) endSession({ name: this.session.name, text: 'Your session has ended. Sign in again.' })
  }

  /** After every connect: what conversations there are, how far each was read, and what was missed meanwhile. */
  async #sync(): Promise<void> {
    try {
      const catchUps: Promise<void>[] = []
      for (const { channel, last, ...standing } of await this.#im.conversations()) {
        const conversation = this.store.conversation(channel)
        if (conversation.readSeq > standing.readSeq) this.#tellRead(conversation)
        this.store.setStanding(conversation, standing)
        if (last !== undefined) conversation.preview = { ...last, key: last.messageID, delivery: last.fromUID === this.store.me ? 'sent' : 'received', reasonCode: 0 }
        catchUps.push(this.#catchUp(conversation))
      }
      const { open } = this.store
      if (open?.history === 'failed') void this.loadOlder(open)
      await Promise.all(catchUps)
    } catch {
      // Live messages arrive meanwhile, and a gap in them is filled when it shows; the next connect asks by itself.
      setTimeout(() => {
        if (this.store.link.state === 'online') void this.#sync()
      }, SYNC_AGAIN_MS)
    }
  }

  #fillGaps(conversation: Conversation): void {
    this.#catchUp(conversation).catch(() => undefined) // asked again at the next gap or connect
  }

  /**
   * Load what is missing in a conversation whose history is on the page. One after the other: what has become known of
   * since the one under way began, it may not have found.
   */
  #catchUp(conversation: Conversation): Promise<void> {
    return this.#inTurn(conversation, () => this.#loadMissing(conversation))
  }

  /** Everything that is on the page once more; what nobody looks at when somebody does. */
  #readAgain(): void {
    const { open, conversations } = this.store
    for (const conversation of conversations.values()) {
      if (conversation.history === 'unknown' || conversation.history === 'loading') continue
      if (conversation !== open) this.store.forgetHistory(conversation)
      else this.#inTurn(conversation, () => this.#loadAfter(conversation, (firstStored(conversation)?.messageSeq ?? 1) - 1)).catch(() => undefined)
    }
  }

  #inTurn(conversation: Conversation, load: () => Promise<void>): Promise<void> {
    const earlier = this.#catchUps.get(conversation.id) ?? Promise.resolve()
    const catchUp = earlier.then(load)
    this.#catchUps.set(conversation.id, catchUp.catch(() => undefined))
    return catchUp
  }

  /**
   * From the newest message without a gap below it to the newest there is: what was typed without a connection may already
   * be acknowledged with a number beyond what was missed.
   */
  async #loadMissing(conversation: Conversation): Promise<void> {
    const { history } = conversation
    const after = endOfRun(conversation)
    if (after >= conversation.lastSeq) return
    // It begins with the newest page, not with number 1; `loadOlder` comes back here when it is through.
    if (history === 'unknown' || history === 'loading' || (history === 'failed' && after === 0)) return
    await this.#loadAfter(conversation, after)
  }

  async #loadAfter(conversation: Conversation, after: number): Promise<void> {
    for (let loadedCount = 0, more = true; more; ) {
      const page = await this.#im.messages(conversation, { after, limit: 100 })
      this.store.addPage(conversation, page.messages)
      loadedCount += page.messages.length
      after = page.messages.at(-1)?.messageSeq ?? after
      more = page.more
      if (more && loadedCount >= MAX_CATCH_UP_COUNT) {
        this.store.forgetHistory(conversation)
        return this.loadOlder(conversation)
      }
    }
  }
}

function newClientMsgNo(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
}
