import type { App } from '../app.ts'
import { h, setAttribute, setText, type ItemView } from '../dom.ts'
import { completeTimeOf, timeOf, toneOf } from '../format.ts'
import { icon } from '../icons.ts'
import { reasonText } from '../reasons.ts'
import type { ChatMessage } from '../store.ts'
import { avatar } from './avatar.ts'

export type LogItem =
  | { readonly kind: 'day' | 'new' | 'notice'; readonly text: string }
  /** `first` and `last` of a group of messages by one sender */
  | { readonly kind: 'message'; readonly message: ChatMessage; readonly group: boolean; readonly first: boolean; readonly last: boolean }

export function separatorView(): ItemView<LogItem> {
  const label = h('span', {})
  const element = h('div', { role: 'separator' }, label)
  return {
    element,
    update(item) {
      if (item.kind === 'message') return
      element.className = `separator separator-${item.kind}`
      setText(label, item.text)
    },
  }
}

export function noticeView(): ItemView<LogItem> {
  const label = h('span', {})
  return {
    element: h('p', { class: 'notice' }, label),
    update(item) {
      if (item.kind === 'notice') setText(label, item.text)
    },
  }
}

export function messageView(app: App): ItemView<LogItem> {
  const picture = avatar()
  const author = h('span', { class: 'author' })
  const text = h('span', { class: 'text', dir: 'auto' })
  const time = h('time', {})
  const tick = h('span', { class: 'tick', role: 'img' })
  const detail = h('p', { class: 'detail' })
  const meta = h('button', { class: 'meta', type: 'button', tabindex: -1, 'aria-expanded': 'false', on: { click: toggleDetail } }, time, tick)
  const why = h('span', {})
  const failure = h(
    'p',
    { class: 'failure' },
    why,
    h('button', { class: 'link-button', type: 'button', on: { click: () => app.retry(key) } }, 'Try again'),
    h('button', { class: 'link-button', type: 'button', on: { click: () => app.discard(key) } }, 'Delete'),
  )
  const recall = h('button', { class: 'icon-button recall', type: 'button', title: 'Take it back', 'aria-label': 'Take it back', on: { click: () => void takeBack() } }, icon('undo'))
  const bubble = h('div', { class: 'bubble' }, author, text, meta)
  const element = h('article', { class: 'message' }, picture.element, h('div', { class: 'message-body' }, bubble, detail, failure), recall)
  detail.hidden = true
  let key = ''
  let shown: ChatMessage | undefined
  let shownText: string | undefined
  let shownTick: string | undefined

  function toggleDetail(): void {
    detail.hidden = !detail.hidden
    meta.setAttribute('aria-expanded', String(!detail.hidden))
  }

  async function takeBack(): Promise<void> {
    if (shown === undefined || !confirm('Take this message back? Nobody will be able to read it any more.')) return
    recall.disabled = true
    await app.recall(shown).catch((error: unknown) => alert(error instanceof Error ? error.message : String(error)))
    recall.disabled = false
  }

  function update(item: LogItem): void {
    if (item.kind !== 'message') return
    const { message, group, first, last } = item
    const { fromUID, delivery, timestampMs } = message
    const mine = delivery !== 'received'
    const name = app.store.nameOf(fromUID)
    key = message.key
    shown = message
    recall.hidden = delivery !== 'sent' || message.recalled
    element.className = ['message', mine ? 'is-mine' : 'is-theirs', `is-${delivery}`, message.recalled && 'is-recalled', group && 'in-group', first && 'is-first', last && 'is-last'].filter(Boolean).join(' ')
    setAttribute(element, 'data-seq', message.messageSeq || undefined)
    picture.element.hidden = mine || !group
    picture.update({ id: fromUID, name })
    author.hidden = mine || !group || !first
    author.className = `author ink-${toneOf(fromUID)}`
    setText(author, name)
    if (message.text !== shownText) text.replaceChildren(...linked(message.text))
    shownText = message.text
    setText(time, timeOf(timestampMs))
    time.dateTime = new Date(timestampMs).toISOString()

    const state = stateOf(message)
    tick.hidden = !mine
    if (delivery !== shownTick && mine) tick.replaceChildren(icon(delivery === 'sending' ? 'clock' : delivery === 'failed' ? 'alert' : 'check'))
    shownTick = delivery
    setAttribute(tick, 'aria-label', state)
    meta.title = `${state}\n${completeTimeOf(timestampMs)}`
    setText(detail, `${state} · ${completeTimeOf(timestampMs)}`)
    failure.hidden = delivery !== 'failed'
    if (delivery === 'failed') setText(why, `Not delivered: ${reasonText(message.reasonCode)}.`)
  }

  return { element, update }
}

function stateOf({ delivery, messageSeq }: ChatMessage): string {
  switch (delivery) {
    case 'sending':
      return 'Sending'
    case 'failed':
      return 'Not delivered'
    case 'sent':
      return `Sent · #${messageSeq}`
    case 'received':
      return `Received · #${messageSeq}`
  }
}

/** Text with its web addresses as links; everything else stays the text it is. */
function linked(text: string): (Node | string)[] {
  // The split keeps what the group matched: every second part is an address.
  return text.split(/(\bhttps?:\/\/[^\s<>"'`]*[^\s<>"'`.,:;!?)\]}])/u).map((part, index) => {
    if (index % 2 === 0 || !URL.canParse(part)) return part
    return h('a', { href: part, target: '_blank', rel: 'noopener noreferrer nofollow' }, part)
  })
}
