type Listeners = { [E in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[E]) => void }
type Child = Node | string | undefined | false

interface Properties {
  class?: string
  on?: Listeners
  /** attributes; undefined and false leave one out, true writes it empty */
  [attribute: string]: string | number | boolean | Listeners | undefined
}

/** One element. Text goes in as text nodes only: nothing on this page is ever parsed as markup. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, { on, ...attributes }: Properties = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value as string | number | boolean | undefined)
  for (const [event, listener] of Object.entries(on ?? {})) element.addEventListener(event, listener as EventListener)
  element.append(...children.filter((child) => child !== undefined && child !== false))
  return element
}

export function setAttribute(element: Element, name: string, value: string | number | boolean | undefined): void {
  if (value === undefined || value === false) element.removeAttribute(name)
  else if (element.getAttribute(name) !== String(value === true ? '' : value)) element.setAttribute(name, value === true ? '' : String(value))
}

export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
}

/** A view of one item: `update` is called once at first and whenever the item may have changed. */
export interface ItemView<T> {
  readonly element: HTMLElement
  update(item: T): void
}

/** Keeps a parent's children equal to a list, moving and changing as few as possible, so focus and selection survive. */
export class KeyedList<T> {
  readonly #parent: HTMLElement
  readonly #create: (item: T) => ItemView<T>
  #views = new Map<string, ItemView<T>>()

  constructor(parent: HTMLElement, create: (item: T) => ItemView<T>) {
    this.#parent = parent
    this.#create = create
  }

  render(items: readonly (readonly [key: string, item: T])[]): void {
    const views = new Map<string, ItemView<T>>()
    for (const [key, item] of items) {
      const view = this.#views.get(key) ?? this.#create(item)
      this.#views.delete(key)
      view.update(item)
      views.set(key, view)
    }
    const focused = document.activeElement
    for (const { element } of this.#views.values()) element.remove()
    let next: ChildNode | null = this.#parent.firstChild
    for (const { element } of views.values()) {
      if (element === next) next = element.nextSibling
      else this.#parent.insertBefore(element, next)
    }
    this.#views = views
    // Moving an element takes the focus from it.
    if (focused instanceof HTMLElement && focused !== document.activeElement && this.#parent.contains(focused)) focused.focus({ preventScroll: true })
  }
}
