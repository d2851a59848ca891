import { LOBBY } from '../../../wire.ts'
import { h, setText, type ItemView } from '../dom.ts'
import { initialsOf, toneOf } from '../format.ts'
import { icon } from '../icons.ts'

export interface AvatarItem {
  readonly id: string
  readonly name: string
  readonly online?: boolean
}

/** Initials on the person's colour; the lobby has its own sign. Only decoration: the name always stands next to it. */
export function avatar({ large = false }: { large?: boolean } = {}): ItemView<AvatarItem> {
  const initials = h('span', { class: 'avatar-initials' })
  const dot = h('span', { class: 'dot' })
  const element = h('span', { class: 'avatar', 'aria-hidden': true }, initials, dot)
  let shownID = ''
  return {
    element,
    update({ id, name, online = false }) {
      element.className = `avatar${large ? ' avatar-large' : ''} ${id === LOBBY.channelID ? 'tone-lobby' : `tone-${toneOf(id)}`}`
      if (id === LOBBY.channelID) {
        if (shownID !== id) initials.replaceChildren(icon('hash'))
      } else setText(initials, initialsOf(name))
      shownID = id
      dot.hidden = !online
    },
  }
}
