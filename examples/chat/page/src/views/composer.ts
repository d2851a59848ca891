import { MAX_TEXT_CHARS } from '../../../wire.ts'
import type { App } from '../app.ts'
import { h, setText } from '../dom.ts'
import { icon } from '../icons.ts'
import { titleOf } from '../route.ts'

// The count shows when this little is left.
const NEAR_LIMIT_CHARS = 300

/** Where messages are typed. Every conversation keeps its own draft. */
export function composerView(app: App): { element: HTMLElement; update(): void } {
  const { store } = app
  const drafts = new Map<string, string>()
  const field = h('textarea', {
    class: 'composer-field',
    rows: 1,
    maxlength: MAX_TEXT_CHARS,
    enterkeyhint: 'send',
    autocomplete: 'off',
    on: { input: () => onInput(), keydown: (event) => onKey(event) },
  })
  const count = h('span', { class: 'composer-count', 'aria-live': 'polite' })
  const button = h('button', { class: 'send', type: 'submit', 'aria-label': 'Send', title: 'Send (Enter)' }, icon('send'))
  const box = h('div', { class: 'composer-box' }, field, count, button)
  const element = h('form', { class: 'composer', on: { submit: (event) => (event.preventDefault(), send()) } }, box)
  let shownID: string | undefined

  function update(): void {
    const { open, link } = store
    if (open === undefined) {
      shownID = undefined
      return
    }
    const over = link.state === 'kicked' || link.state === 'refused'
    field.disabled = over
    field.placeholder = over ? 'You are not signed in here any more' : `Message ${titleOf(open, store)}`
    field.setAttribute('aria-label', field.placeholder)
    if (open.id !== shownID) {
      shownID = open.id
      field.value = drafts.get(open.id) ?? ''
      fit()
      // On a touch screen the keyboard would cover the conversation that was just opened.
      if (matchMedia('(hover: hover)').matches) field.focus({ preventScroll: true })
    }
    renderButton()
  }

  function onInput(): void {
    if (shownID !== undefined) drafts.set(shownID, field.value)
    fit()
    renderButton()
  }

  function onKey(event: KeyboardEvent): void {
    // While an input method composes, Enter picks a word.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
    event.preventDefault()
    send()
  }

  function send(): void {
    // Half of a surrogate pair, which a cut can leave behind, cannot be encoded.
    const text = field.value.toWellFormed().trim()
    if (text === '' || field.disabled) return
    app.send(text)
    field.value = ''
    onInput()
    field.focus({ preventScroll: true })
  }

  function renderButton(): void {
    button.disabled = field.disabled || field.value.trim() === ''
    const left = MAX_TEXT_CHARS - field.value.length
    count.hidden = left > NEAR_LIMIT_CHARS
    setText(count, String(left))
  }

  /** As high as the text; the style sheet limits it. */
  function fit(): void {
    field.style.height = 'auto'
    field.style.height = `${field.scrollHeight}px`
  }

  return { element, update }
}
