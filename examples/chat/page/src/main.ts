import { LOBBY, type Session } from '../../wire.ts'
import { App } from './app.ts'
import { h } from './dom.ts'
import { channelOf, hashOf, titleOf } from './route.ts'
import { loadSession, saveSession, takeNotice } from './session.ts'
import { bannerView } from './views/banner.ts'
import { chatView } from './views/chat.ts'
import { listView } from './views/list.ts'
import { loginView } from './views/login.ts'

const root = document.getElementById('root') ?? document.body

function showLogin(): void {
  root.replaceChildren(loginView({ notice: takeNotice(), done: (session) => (saveSession(session), showChat(session)) }))
}

function showChat(session: Session): void {
  const app = new App(session)
  const { store } = app
  const banner = bannerView(store)
  const list = listView(app)
  const chat = chatView(app)
  const frame = h('div', { class: 'app' }, banner.element, list.element, chat.element)
  root.replaceChildren(frame)

  const follow = (): void => app.open(channelOf(location.hash))
  const render = (): void => {
    frame.classList.toggle('is-open', store.open !== undefined)
    banner.update()
    list.update()
    chat.update()
    const unreadCount = [...store.conversations.values()].reduce((sum, one) => sum + store.unreadCount(one), 0)
    const where = store.open === undefined ? 'imengine chat' : `${titleOf(store.open, store)} – imengine chat`
    document.title = unreadCount > 0 ? `(${unreadCount}) ${where}` : where
  }
  store.onChange(render)
  window.addEventListener('hashchange', follow)
  // Times like "last seen 5 min ago" move on by themselves.
  setInterval(render, 30_000)

  // With room for both panes an empty one would be a waste; on a phone the list comes first.
  if (location.hash === '' && matchMedia('(min-width: 720px)').matches) history.replaceState(null, '', hashOf(LOBBY))
  follow()
  render()
  app.start()
}

const session = loadSession()
if (session === undefined) showLogin()
else showChat(session)
