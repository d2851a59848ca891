import type { ChannelRef, Session } from '../../wire.ts'
import { API } from './api.ts'
import { IM } from './im.ts'
import { endSession, loadOutbox, saveOutbox } from './session.ts'
import { Store, type Conversation, type Link } from './store.ts'

const AUTH_FAIL = 2
const PAGE_COUNT = 40
// Further behind than this, the newest page is loaded again instead of everything in between.
const MAX_CATCH_UP_COUNT = 400

/** What the page can do, and where its data comes from: live messages by the SDK, the past and the people by HTTP. */
export class App {
  readonly session: Session
  readonly store: Store
  readonly #api: API
  readonly #im: IM
  readonly #life = new AbortController()
  readonly #readTimers = new Map<string, ReturnType<typeof setTimeout>>()
  readonly #catchingUp = new Set<string>()

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
        if (this.store.receive(message) === 'gap') void this.#catchUp(this.store.conversation(message.channel))
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
      },
      person: (person) => store.setPerson(person),
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
      const first = before === 'unknown' ? undefined : conversation.messages.find(({ messageSeq }) => messageSeq > 0)
      const { messages, more } = await this.#im.messages(conversation, {
        ...(first === undefined ? {} : { before: first.messageSeq }),
        limit: PAGE_COUNT,
      })
      for (const message of messages) this.store.receive(message)
      conversation.history = more ? 'partial' : 'complete'
    } catch {
      conversation.history = 'failed'
    }
    this.store.changed()
  }

  /** Everything in the conversation has been on the screen. The server is told at most once a second. */
  markRead(conversation: Conversation): void {
    if (this.store.unreadCount(conversation) === 0) return
    this.store.markRead(conversation, conversation.lastSeq)
    if (this.#readTimers.has(conversation.id)) return
    const timer = setTimeout(() => {
      this.#readTimers.delete(conversation.id)
      // Lost, it is said again with the next message that is read.
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
    // The server no longer knows this token, most likely because it was started anew and forgot everything.
    if (link.state === 'refused' && link.reasonCode === AUTH_FAIL) endSession({ name: this.session.name, text: 'Your session has ended. Sign in again.' })
  }

  /** After every connect: what conversations there are, how far each was read, and what was missed meanwhile. */
  async #sync(): Promise<void> {
    try {
      for (const { channel, lastSeq, readSeq, last } of await this.#im.conversations()) {
        const conversation = this.store.conversation(channel)
        this.store.markRead(conversation, readSeq)
        if (last !== undefined) conversation.preview = { ...last, key: last.messageID, delivery: last.fromUID === this.store.me ? 'sent' : 'received', reasonCode: 0 }
        // Not by `lastSeq`: what was typed meanwhile may already be acknowledged with a number beyond what was missed.
        if (conversation.messages.length > 0 && endOfRun(conversation) < lastSeq) await this.#catchUp(conversation)
        conversation.lastSeq = Math.max(conversation.lastSeq, lastSeq)
        this.store.changed()
      }
      const { open } = this.store
      if (open?.history === 'failed') void this.loadOlder(open)
    } catch {
      // The next connect tries again; live messages arrive meanwhile, and a gap in them is filled when it shows.
    }
  }

  /** Load what is missing between the newest message without a gap below it and the newest there is. */
  async #catchUp(conversation: Conversation): Promise<void> {
    if (this.#catchingUp.has(conversation.id)) return
    this.#catchingUp.add(conversation.id)
    try {
      let loadedCount = 0
      for (let more = true; more && loadedCount < MAX_CATCH_UP_COUNT; ) {
        const page = await this.#im.messages(conversation, { after: endOfRun(conversation), limit: 100 })
        for (const message of page.messages) this.store.receive(message)
        loadedCount += page.messages.length
        more = page.more
        if (more && loadedCount >= MAX_CATCH_UP_COUNT) {
          conversation.messages.splice(0, conversation.messages.length, ...conversation.messages.filter(({ messageSeq }) => messageSeq === 0))
          conversation.history = 'unknown'
          await this.loadOlder(conversation)
        }
      }
    } catch {
      // Asked again at the next gap or connect.
    } finally {
      this.#catchingUp.delete(conversation.id)
    }
  }
}

/** The last number before the first gap among the messages at hand. */
function endOfRun({ messages }: Conversation): number {
  let seq = 0
  for (const { messageSeq } of messages) {
    if (messageSeq === 0) continue
    if (seq !== 0 && messageSeq !== seq + 1) break
    seq = messageSeq
  }
  return seq
}

function newClientMsgNo(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
}
