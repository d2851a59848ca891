import { inspect } from 'node:util'

/** Every text that shows `secret`: as it is, in hex, in base64 at each of its three offsets, and as a list of numbers. */
function* disguisesOf(secret: string): Generator<string> {
  const bytes = Buffer.from(secret)
  yield secret
  yield bytes.toString('hex')
  yield [...bytes].join(',')
  for (const shift of [0, 1, 2]) {
    const shifted = Buffer.concat([Buffer.alloc(shift), bytes])
    // The characters at both ends depend on what stands beside the secret.
    yield shifted.toString('base64').replace(/=+$/, '').slice(shift === 0 ? 0 : shift + 1, -1)
    yield shifted.toString('base64url').slice(shift === 0 ? 0 : shift + 1, -1)
  }
}

/** Looks for secrets in whatever it is shown, printed in every way that a host may print it. */
export class SecretFinder {
  readonly #disguises: (readonly [name: string, disguise: string])[]
  readonly #shown: string[] = []

  constructor(secrets: Readonly<Record<string, string>>) {
    this.#disguises = Object.entries(secrets).flatMap(([name, secret]) => [...disguisesOf(secret)].map((disguise) => [name, disguise] as const))
  }

  get shownCount(): number {
    return this.#shown.length
  }

  show(value: unknown): void {
    const printed = [inspect(value, { depth: 20, maxArrayLength: null, maxStringLength: null, breakLength: Infinity }), String(value)]
    try {
      printed.push(JSON.stringify(value, (_name, part: unknown) => (typeof part === 'bigint' ? String(part) : part)) ?? '')
    } catch {
      // It refers to itself: nobody can print it this way.
    }
    if (value instanceof Error) printed.push(value.message, value.stack ?? '')
    // A buffer is printed as hex in pairs.
    for (const text of printed) this.#shown.push(text, text.replaceAll(/\s/g, ''))
  }

  /** The names of the secrets that can be seen, each with what stands around it. */
  get found(): string[] {
    return this.#disguises.flatMap(([name, disguise]) => {
      const text = this.#shown.find((shown) => shown.includes(disguise))
      if (text === undefined) return []
      const at = text.indexOf(disguise)
      return [`${name}: …${text.slice(Math.max(0, at - 80), at + disguise.length + 40)}…`]
    })
  }
}
