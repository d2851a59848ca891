import type { App } from '../app.ts'
import { h, setText } from '../dom.ts'
import { lastSeenText } from '../format.ts'
import { icon } from '../icons.ts'
import { ChannelType } from '../im.ts'
import { titleOf } from '../route.ts'
import type { Conversation, Store } from '../store.ts'
import { avatar } from './avatar.ts'
import { composerView } from './composer.ts'
import { logView } from './log.ts'

/** The right side: the open conversation, or what to do when none is. */
export function chatView(app: App): { element: HTMLElement; update(): void } {
  const { store } = app
  const picture = avatar()
  const title = h('h1', { class: 'chat-title' })
  const subtitle = h('p', { class: 'chat-subtitle' })
  const log = logView(app)
  const composer = composerView(app)
  const conversation = h(
    'section',
    { class: 'chat-conversation' },
    h(
      'header',
      { class: 'chat-header' },
      h('a', { class: 'icon-button back', href: '#/', 'aria-label': 'Back to the conversations' }, icon('back')),
      picture.element,
      h('div', { class: 'chat-heading' }, title, subtitle),
      h('span', { class: 'secure', title: 'Payloads travel encrypted with a key of this connection' }, icon('lock'), 'wkproto'),
    ),
    log.element,
    composer.element,
  )
  const empty = h(
    'section',
    { class: 'chat-empty' },
    h('div', { class: 'chat-empty-sign' }, icon('chats')),
    h('h1', {}, 'Pick a conversation'),
    h('p', {}, 'Say something in the lobby, or choose a person to talk to them alone.'),
  )
  const element = h('main', { class: 'chat' }, conversation, empty)

  function update(): void {
    const { open } = store
    conversation.hidden = open === undefined
    empty.hidden = open !== undefined
    if (open !== undefined) {
      const person = open.channelType === ChannelType.Person ? store.people.get(open.channelID) : undefined
      picture.update({ id: open.channelID, name: titleOf(open, store), online: person?.online ?? false })
      setText(title, titleOf(open, store))
      setText(subtitle, subtitleOf(open, store))
      subtitle.classList.toggle('is-online', person?.online ?? false)
    }
    log.update()
    composer.update()
  }

  return { element, update }
}

function subtitleOf({ channelID, channelType }: Conversation, store: Store): string {
  if (channelType === ChannelType.Group) {
    const members = [...store.people.values()].filter(({ left }) => !left)
    const onlineCount = members.filter(({ online }) => online).length
    return members.length === 0 ? '' : `${members.length} ${members.length === 1 ? 'person' : 'people'}, ${onlineCount} online`
  }
  const person = store.people.get(channelID)
  if (person === undefined) return ''
  if (person.left) return 'signed out'
  if (person.online) return 'online'
  return person.lastSeenMs === null ? 'offline' : lastSeenText(person.lastSeenMs)
}
