import { SYSTEM_UID } from '../../../wire.ts'
import type { App } from '../app.ts'
import { h, KeyedList, setText } from '../dom.ts'
import { dayOf, startOfDay } from '../format.ts'
import { icon } from '../icons.ts'
import { ChannelType } from '../im.ts'
import { titleOf } from '../route.ts'
import type { ChatMessage, Conversation } from '../store.ts'
import { messageView, noticeView, separatorView, type LogItem } from './message.ts'

// Messages of one sender this close together stand as one group.
const GROUP_MS = 5 * 60_000
// Near enough to the end to go on following it.
const FOLLOW_PX = 80

/** The messages of the open conversation: groups, days, what is new, and where the reader is. */
export function logView(app: App): { element: HTMLElement; update(): void } {
  const { store } = app
  const start = h('div', { class: 'log-start' })
  const items = h('div', { class: 'log-items' })
  const log = h('div', { class: 'log', role: 'log', 'aria-live': 'polite', tabindex: 0, on: { scroll: () => onScroll() } }, start, items)
  const jumpCount = h('span', { class: 'badge' })
  const jump = h('button', { class: 'jump', type: 'button', 'aria-label': 'Go to the newest message', on: { click: () => toEnd({ smooth: true }) } }, icon('down'), jumpCount)
  const element = h('div', { class: 'log-frame' }, log, jump)
  const list = new KeyedList<LogItem>(items, ({ kind }) => (kind === 'message' ? messageView(app) : kind === 'notice' ? noticeView() : separatorView()))

  let shownID: string | undefined
  /** number of the last message that was read when the conversation was opened: what is new stands below it */
  let newAfterSeq: number | undefined
  let placed = false
  let following = true
  let firstKey: string | undefined
  let lastKey: string | undefined

  function update(): void {
    const { open } = store
    if (open === undefined) {
      shownID = undefined
      return
    }
    if (open.id !== shownID) switchTo(open)
    const fromEndPx = log.scrollHeight - log.scrollTop
    const newest = open.messages.at(-1)
    list.render(toItems(open))
    renderStart(open)

    const loaded = open.history !== 'unknown' && open.history !== 'loading'
    if (!placed && (loaded || open.messages.length > 0)) place(loaded)
    else if (newest !== undefined && newest.key !== lastKey && newest.delivery === 'sending') toEnd()
    else if (following) toEnd()
    else if (open.messages[0]?.key !== firstKey) log.scrollTop = log.scrollHeight - fromEndPx
    firstKey = open.messages[0]?.key
    lastKey = newest?.key
    noteRead()
    renderJump(open)
  }

  function switchTo(open: Conversation): void {
    shownID = open.id
    newAfterSeq = store.unreadCount(open) > 0 && open.readSeq > 0 ? open.readSeq : undefined
    placed = false
    following = true
    firstKey = undefined
    lastKey = undefined
    log.setAttribute('aria-label', `Messages, ${titleOf(open, store)}`)
    // A screen reader should hear what arrives, not the whole conversation when it opens.
    log.setAttribute('aria-busy', 'true')
  }

  /** Where reading starts: at what is new, or at the end. */
  function place(final: boolean): void {
    const divider = items.querySelector<HTMLElement>('.separator-new')
    if (divider === null) toEnd()
    else {
      log.scrollTop = divider.offsetTop - 60
      following = isAtEnd()
    }
    placed = final
    if (final) requestAnimationFrame(() => log.removeAttribute('aria-busy'))
  }

  function renderStart(open: Conversation): void {
    start.className = `log-start is-${open.history}`
    if (open.history === 'failed') {
      if (start.querySelector('button') === null)
        start.replaceChildren('The history could not be loaded. ', h('button', { class: 'link-button', type: 'button', on: { click: () => void app.loadOlder(open) } }, 'Try again'))
      return
    }
    const title = titleOf(open, store)
    const empty = open.messages.length === 0
    const group = open.channelType === ChannelType.Group
    if (open.history === 'complete')
      setText(start, empty ? (group ? `Nothing has been said in ${title} yet.` : `Say hello to ${title}. This is between the two of you.`) : `This is the beginning of ${group ? title : `your conversation with ${title}`}.`)
    else setText(start, open.history === 'loading' ? 'Loading …' : '')
  }

  function renderJump(open: Conversation): void {
    const unreadCount = store.unreadCount(open)
    jump.classList.toggle('is-shown', !following)
    jump.tabIndex = following ? -1 : 0
    jumpCount.hidden = unreadCount === 0
    setText(jumpCount, unreadCount > 99 ? '99+' : String(unreadCount))
  }

  function onScroll(): void {
    const { open } = store
    if (open === undefined || open.id !== shownID || !placed) return
    following = isAtEnd()
    noteRead()
    renderJump(open)
    if (log.scrollTop < 200 && open.history === 'partial') void app.loadOlder(open)
  }

  function noteRead(): void {
    const { open } = store
    if (open !== undefined && placed && following && document.visibilityState === 'visible') app.markRead(open)
  }

  function toEnd({ smooth = false } = {}): void {
    following = true
    log.scrollTo({ top: log.scrollHeight, behavior: smooth && !matchMedia('(prefers-reduced-motion: reduce)').matches ? 'smooth' : 'instant' })
  }

  const isAtEnd = (): boolean => log.scrollHeight - log.scrollTop - log.clientHeight < FOLLOW_PX

  function toItems(open: Conversation): [string, LogItem][] {
    const result: [string, LogItem][] = []
    let previous: ChatMessage | undefined
    let newShown = newAfterSeq === undefined
    for (const [index, message] of open.messages.entries()) {
      const day = startOfDay(message.timestampMs)
      const newDay = previous === undefined || startOfDay(previous.timestampMs) !== day
      if (newDay) result.push([`day:${day}:${message.key}`, { kind: 'day', text: dayOf(message.timestampMs) }])
      const startsNew = !newShown && message.fromUID !== store.me && message.messageSeq > (newAfterSeq ?? 0)
      if (startsNew) {
        newShown = true
        result.push(['new', { kind: 'new', text: 'New messages' }])
      }
      if (message.fromUID === SYSTEM_UID) result.push([message.key, { kind: 'notice', text: message.text }])
      else {
        const next = open.messages[index + 1]
        result.push([
          message.key,
          {
            kind: 'message',
            message,
            group: open.channelType === ChannelType.Group,
            first: newDay || startsNew || !joins(previous, message),
            last: next === undefined || startOfDay(next.timestampMs) !== day || !joins(message, next),
          },
        ])
      }
      previous = message
    }
    return result
  }

  document.addEventListener('visibilitychange', () => {
    noteRead()
    store.changed()
  })
  new ResizeObserver(() => {
    if (following && placed) toEnd()
  }).observe(log)

  return { element, update }
}

function joins(previous: ChatMessage | undefined, message: ChatMessage): boolean {
  return previous !== undefined && previous.fromUID === message.fromUID && message.timestampMs - previous.timestampMs < GROUP_MS
}
