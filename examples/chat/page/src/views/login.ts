import { MAX_NAME_CHARS, type Session } from '../../../wire.ts'
import { APIError, login } from '../api.ts'
import { h, setText } from '../dom.ts'
import { icon } from '../icons.ts'
import { knownToken, type Notice } from '../session.ts'

/** Asks for a name and calls `done` with the session the server gave for it. */
export function loginView({ notice, done }: { notice: Notice | undefined; done: (session: Session) => void }): HTMLElement {
  const field = h('input', {
    id: 'name',
    class: 'field',
    type: 'text',
    name: 'name',
    required: true,
    value: notice?.name,
    maxlength: MAX_NAME_CHARS,
    placeholder: 'Ada Lovelace',
    autocomplete: 'nickname',
    autofocus: true,
    'aria-describedby': 'login-error',
  })
  const label = h('span', {}, 'Join the chat')
  const button = h('button', { class: 'primary', type: 'submit' }, label)
  const problem = h('p', { id: 'login-error', class: 'login-error', role: 'alert' }, notice?.text)
  const form = h(
    'form',
    { class: 'login-form', novalidate: true, on: { submit: (event) => (event.preventDefault(), void submit()) } },
    h('label', { for: 'name' }, 'Your name'),
    field,
    problem,
    button,
  )

  async function submit(): Promise<void> {
    const name = field.value.trim()
    if (name === '') return fail('Enter the name others should see.')
    button.disabled = true
    setText(label, 'Signing in …')
    try {
      const token = knownToken(name)
      done(await login(token === undefined ? { name } : { name, token }))
    } catch (error) {
      fail(error instanceof APIError ? error.message : 'Something went wrong. Try again.')
    }
    button.disabled = false
    setText(label, 'Join the chat')
  }

  function fail(message: string): void {
    setText(problem, message)
    field.setAttribute('aria-invalid', 'true')
    field.focus()
    field.select()
  }

  field.addEventListener('input', () => {
    field.removeAttribute('aria-invalid')
    setText(problem, '')
  })

  return h(
    'main',
    { class: 'login' },
    h(
      'div',
      { class: 'login-card' },
      h('div', { class: 'logo' }, icon('chats')),
      h('h1', {}, 'imengine chat'),
      h('p', { class: 'login-lead' }, 'Real-time messaging inside your own Node app. This page talks to it with the WuKongIM SDK, straight from npm.'),
      form,
      h('p', { class: 'hint' }, 'Open a second tab under another name to chat with yourself.'),
    ),
    h(
      'ul',
      { class: 'login-facts', 'aria-label': 'About this chat' },
      h('li', {}, icon('lock'), 'Encrypted per connection'),
      h('li', {}, icon('check'), 'Numbered, in order, once'),
      h('li', {}, icon('retry'), 'Survives a lost connection'),
    ),
  )
}
