import { h, setText } from '../dom.ts'
import type { Store } from '../store.ts'

// A connection that takes no longer than this is not worth a word.
const PATIENCE_MS = 800

/** Says what is wrong with the connection, and nothing while nothing is. */
export function bannerView(store: Store): { element: HTMLElement; update(): void } {
  const text = h('span', {})
  const action = h('button', { class: 'banner-action', type: 'button' })
  const element = h('div', { class: 'banner', role: 'status' }, h('span', { class: 'banner-spinner', 'aria-hidden': true }), text, action)
  let sinceMs = Date.now()
  let lost = false
  let timer: ReturnType<typeof setInterval> | undefined
  action.addEventListener('click', () => location.reload())

  function update(): void {
    const { link } = store
    if (link.state === 'online') {
      lost = false
      sinceMs = Date.now()
    }
    if (link.state === 'waiting') lost = true
    const fine = link.state === 'online' || (link.state === 'connecting' && !lost && Date.now() - sinceMs < PATIENCE_MS)
    element.classList.toggle('is-shown', !fine)
    element.classList.toggle('is-final', link.state === 'kicked' || link.state === 'refused')
    action.hidden = link.state !== 'kicked' && link.state !== 'refused'
    if (!fine) setText(text, textOf(store))
    setText(action, link.state === 'kicked' ? 'Use it here' : 'Try again')
    const pending = link.state === 'connecting' || link.state === 'waiting'
    if (pending && timer === undefined) timer = setInterval(update, 250)
    if (!pending) {
      clearInterval(timer)
      timer = undefined
    }
  }

  for (const event of ['online', 'offline'] as const) window.addEventListener(event, update)
  return { element, update }
}

function textOf({ link }: Store): string {
  if (link.state === 'kicked') return 'Signed in elsewhere. This tab no longer receives messages.'
  if (link.state === 'refused') return `The server refused the connection (reason ${link.reasonCode}).`
  if (!navigator.onLine) return 'You are offline. Messages are sent when you are back.'
  if (link.state === 'waiting') {
    const seconds = Math.ceil((link.untilMs - Date.now()) / 1000)
    return seconds > 0 ? `Connection lost. Reconnecting in ${seconds} s` : 'Connection lost. Reconnecting …'
  }
  return 'Connecting …'
}
