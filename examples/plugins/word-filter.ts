import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { allowAnyToken, ChannelType, IMEngine, ReasonCode, refuse, type OnSendContext, type Outcome, type Plugin } from 'imengine'
import { attachNetServer } from 'imengine/net'

export interface WordFilterOptions {
  /** compared without regard to case, anywhere in a text; ten thousand take about as long as ten */
  readonly words: readonly string[]
  /** what becomes of a text with such a word: stars in its place (default), or SENDACK 11 */
  readonly action?: 'mask' | 'refuse'
  /** ids of groups where everything may be said */
  readonly exemptChannelIDs?: readonly string[]
}

// #region filter
/** Sensitive words in what clients send are masked or refused, before the message has an id. What the host sends passes. */
export function wordFilter(): Plugin<WordFilterOptions> {
  let options: WordFilterOptions = { words: [] }
  let list = new WordList([])

  /** Also while it runs: a new list counts from the next message on. */
  function configure(given: WordFilterOptions): void {
    list = new WordList(given.words)
    options = given
  }

  function filterWords(ctx: OnSendContext): Outcome {
    if (ctx.key.channelType === ChannelType.Group && options.exemptChannelIDs?.includes(ctx.key.channelID)) return
    const { text, withText } = textIn(ctx.payload)
    const masked = list.mask(text)
    if (masked === text) return
    if (options.action === 'refuse') return refuse(ReasonCode.NotAllowSend, 'it has a word that is not allowed')
    ctx.payload = withText(masked)
  }

  return {
    name: 'word-filter',
    configure,
    setup(host, given) {
      configure(given)
      // Behind every other handler there, because one of them may put words in; and what it cannot judge is not sent.
      host.use('EventOnSend', filterWords, { priority: -1_000, onError: 'fail-closed' })
    },
  }
}
// #endregion

/** What a payload says: `content` of `{ type: 1, content }`, all of it when it is no JSON object, otherwise nothing. */
function textIn(payload: Uint8Array): { readonly text: string; readonly withText: (text: string) => Uint8Array } {
  const whole = Buffer.from(payload).toString()
  try {
    const json: unknown = JSON.parse(whole)
    if (typeof json === 'object' && json !== null) {
      const { type, content } = json as { type?: unknown; content?: unknown }
      const text = type === 1 && typeof content === 'string' ? content : ''
      return { text, withText: (masked) => Buffer.from(JSON.stringify({ ...json, content: masked })) }
    }
  } catch {
    // Not JSON: a plain text.
  }
  return { text: whole, withText: (masked) => Buffer.from(masked) }
}

interface Node {
  readonly next: Map<string, Node>
  /** where to go on when nothing in `next` fits: the longest ending of this prefix that begins a word, too */
  fallback: Node | undefined
  /** of the longest word that ends here */
  wordLength: number
}

const newNode = (): Node => ({ next: new Map(), fallback: undefined, wordLength: 0 })

/** All words at once in one pass over a text (Aho and Corasick 1975), whatever their number. */
export class WordList {
  readonly #root = newNode()

  constructor(words: readonly string[]) {
    for (const word of words) {
      let node = this.#root
      for (const char of folded(word)) {
        let next = node.next.get(char)
        if (next === undefined) node.next.set(char, (next = newNode()))
        node = next
      }
      node.wordLength = word.length
    }
    const queue = [this.#root]
    for (const node of queue) {
      for (const [char, next] of node.next) {
        next.fallback = node === this.#root ? this.#root : this.#step(node.fallback!, char)
        next.wordLength = Math.max(next.wordLength, next.fallback.wordLength)
        queue.push(next)
      }
    }
  }

  /** The text with a star for every character of every word, or the same text when there is none. */
  mask(text: string): string {
    let node = this.#root
    const masked = text.split('')
    folded(text).forEach((char, index) => {
      node = this.#step(node, char)
      if (node.wordLength > 0) masked.fill('*', index + 1 - node.wordLength, index + 1)
    })
    return masked.join('')
  }

  #step(from: Node, char: string): Node {
    let node: Node | undefined = from
    while (node !== undefined) {
      const next = node.next.get(char)
      if (next !== undefined) return next
      node = node.fallback
    }
    return this.#root
  }
}

/** Unit by unit in lower case: of one length with the text, so that a place in it is a place in the text. */
function folded(text: string): string[] {
  return Array.from({ length: text.length }, (_, index) => {
    const lower = text[index]!.toLowerCase()
    return lower.length === 1 ? lower : text[index]!
  })
}

export async function start(wantedPort = 0) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
  engine.use(wordFilter(), { words: ['darn', 'heck'], exemptChannelIDs: ['pub'] })
  await engine.start()
  for (const channelID of ['team', 'pub']) await engine.channels.create({ channelID, channelType: ChannelType.Group }, { subscribers: ['ann', 'bob'] })
  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    setWords: (words: readonly string[]) => engine.plugins.configure('word-filter', { words, action: 'refuse' } satisfies WordFilterOptions),
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
