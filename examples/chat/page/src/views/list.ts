import type { App } from '../app.ts'
import { ChannelType } from '../im.ts'
import { h, KeyedList, setAttribute, setText, type ItemView } from '../dom.ts'
import { shortTimeOf } from '../format.ts'
import { icon } from '../icons.ts'
import { hashOf, titleOf } from '../route.ts'
import type { ChatMessage, Conversation, Store } from '../store.ts'
import type { Person } from '../../../wire.ts'
import { avatar } from './avatar.ts'

interface Row {
  readonly id: string
  readonly title: string
  readonly href: string
  readonly online: boolean
  readonly current: boolean
  readonly preview: string
  readonly last: ChatMessage | undefined
  readonly unreadCount: number
  readonly mine: boolean
}

/** The left side: who I am, the conversations newest first, and the people there is no conversation with yet. */
export function listView(app: App): { element: HTMLElement; update(): void } {
  const { store, session } = app
  const me = avatar()
  const state = h('span', { class: 'me-state' })
  const search = h('input', {
    class: 'search-field',
    type: 'search',
    placeholder: 'Search',
    'aria-label': 'Search conversations and people',
    autocomplete: 'off',
    spellcheck: 'false',
    on: { input: () => update() },
  })
  const conversationRows = h('ul', { class: 'rows' })
  const peopleRows = h('ul', { class: 'rows' })
  const peopleTitle = h('h2', { class: 'rows-title' }, 'People')
  const nothing = h('p', { class: 'rows-empty' })
  const rows = h('nav', { class: 'list-scroll', 'aria-label': 'Conversations and people', on: { keydown: moveFocus } }, conversationRows, peopleTitle, peopleRows, nothing)
  const conversationList = new KeyedList(conversationRows, rowView)
  const peopleList = new KeyedList(peopleRows, rowView)

  const element = h(
    'aside',
    { class: 'sidebar' },
    h(
      'header',
      { class: 'me' },
      me.element,
      h('div', { class: 'me-text' }, h('span', { class: 'me-name' }, session.name), state),
      h('button', { class: 'icon-button', type: 'button', title: 'Sign out', 'aria-label': 'Sign out', on: { click: () => void app.signOut() } }, icon('out')),
    ),
    h('div', { class: 'search' }, icon('search'), search),
    rows,
  )

  function update(): void {
    me.update({ id: session.uid, name: session.name, online: store.link.state === 'online' })
    setText(state, stateText(store))
    const wanted = search.value.trim().toLocaleLowerCase()
    const matches = (title: string): boolean => title.toLocaleLowerCase().includes(wanted)

    const conversations = [...store.conversations.values()]
      .filter((one) => isListed(one, store))
      .sort((a, b) => activity(b, store) - activity(a, store))
      .map((one) => toRow(one, store))
      .filter(({ title }) => matches(title))
    const listed = new Set(conversations.map(({ id }) => id))
    const people = [...store.people.values()]
      .filter(({ uid, left }) => uid !== session.uid && !left && !listed.has(`${ChannelType.Person}:${uid}`))
      .sort((a, b) => Number(b.online) - Number(a.online) || a.name.localeCompare(b.name))
      .filter(({ name }) => matches(name))
      .map(personRow)

    conversationList.render(conversations.map((row) => [row.id, row]))
    peopleList.render(people.map((row) => [row.id, row]))
    peopleTitle.hidden = people.length === 0
    nothing.hidden = wanted === '' ? people.length + conversations.length > 1 : people.length + conversations.length > 0
    setText(nothing, wanted === '' ? 'Nobody else is here yet. Open this page in another tab under another name.' : 'Nothing found.')
    rove()
  }

  /** One stop for Tab, the arrows inside. */
  function rove(): void {
    const links = rowLinks()
    const stop = links.find((link) => link === document.activeElement) ?? links.find((link) => link.ariaCurrent === 'true') ?? links[0]
    for (const link of links) link.tabIndex = link === stop ? 0 : -1
  }

  function moveFocus(event: KeyboardEvent): void {
    const links = rowLinks()
    const index = links.findIndex((link) => link === document.activeElement)
    const target = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: links.length - 1 }[event.key]
    const link = target === undefined ? undefined : links[Math.max(0, Math.min(links.length - 1, target))]
    if (link === undefined) return
    event.preventDefault()
    link.focus()
    rove()
  }

  const rowLinks = (): HTMLAnchorElement[] => [...rows.querySelectorAll<HTMLAnchorElement>('a.row')]

  search.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      search.value = ''
      update()
    }
    if (event.key === 'ArrowDown') {
      event.preventDefault()
      rowLinks()[0]?.focus()
    }
    if (event.key === 'Enter') rowLinks()[0]?.click()
  })

  return { element, update }
}

function rowView(): ItemView<Row> {
  const picture = avatar()
  const name = h('span', { class: 'row-name' })
  const time = h('time', { class: 'row-time' })
  const tick = h('span', { class: 'row-tick' })
  const preview = h('span', { class: 'row-preview' })
  const badge = h('span', { class: 'badge' })
  const badgeWord = h('span', { class: 'hidden-text' }, ' unread')
  const link = h(
    'a',
    { class: 'row' },
    picture.element,
    h(
      'span',
      { class: 'row-text' },
      h('span', { class: 'row-line' }, name, time),
      h('span', { class: 'row-line' }, tick, preview, badge),
    ),
  )
  let shownTick: string | undefined
  return {
    element: h('li', {}, link),
    update({ id, title, href, online, current, preview: text, last, unreadCount, mine }) {
      picture.update({ id: id.slice(id.indexOf(':') + 1), name: title, online })
      link.href = href
      setAttribute(link, 'aria-current', current ? 'true' : undefined)
      setText(name, title)
      setText(time, last === undefined ? '' : shortTimeOf(last.timestampMs))
      setText(preview, text)
      const tickName = !mine || last === undefined ? undefined : last.delivery === 'sending' ? 'clock' : last.delivery === 'failed' ? 'alert' : 'check'
      if (tickName !== shownTick) tick.replaceChildren(...(tickName === undefined ? [] : [icon(tickName)]))
      shownTick = tickName
      badge.hidden = unreadCount === 0
      badge.replaceChildren(unreadCount > 99 ? '99+' : String(unreadCount), badgeWord)
    },
  }
}

function toRow(conversation: Conversation, store: Store): Row {
  const last = store.lastMessage(conversation)
  const person = conversation.channelType === ChannelType.Person ? store.people.get(conversation.channelID) : undefined
  const mine = last?.fromUID === store.me
  const author = last === undefined || person !== undefined || conversation.channelType === ChannelType.Person ? '' : mine ? 'You: ' : `${store.nameOf(last.fromUID)}: `
  return {
    id: conversation.id,
    title: titleOf(conversation, store),
    href: hashOf(conversation),
    online: person?.online ?? false,
    current: store.openID === conversation.id,
    preview: last === undefined ? 'No messages yet' : (store.people.has(last.fromUID) ? author : '') + last.text.replace(/\s+/gu, ' '),
    last,
    unreadCount: store.openID === conversation.id && document.visibilityState === 'visible' ? 0 : store.unreadCount(conversation),
    mine,
  }
}

function personRow({ uid, name, online }: Person): Row {
  const channel = { channelID: uid, channelType: ChannelType.Person }
  return {
    id: `${ChannelType.Person}:${uid}`,
    title: name,
    href: hashOf(channel),
    online,
    current: false,
    preview: online ? 'Online' : 'Offline',
    last: undefined,
    unreadCount: 0,
    mine: false,
  }
}

function isListed(conversation: Conversation, store: Store): boolean {
  return conversation.channelType === ChannelType.Group || conversation.id === store.openID || store.lastMessage(conversation) !== undefined
}

function activity(conversation: Conversation, store: Store): number {
  const last = store.lastMessage(conversation)
  // Just opened and still empty: on top, where it was clicked for.
  return last?.timestampMs ?? (conversation.channelType === ChannelType.Group ? 0 : Number.MAX_SAFE_INTEGER)
}

function stateText({ link }: Store): string {
  switch (link.state) {
    case 'online':
      return 'Connected'
    case 'connecting':
      return 'Connecting …'
    case 'waiting':
      return 'Reconnecting …'
    case 'kicked':
      return 'Signed in elsewhere'
    case 'refused':
      return 'Signed out'
  }
}
