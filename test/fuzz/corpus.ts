/** The cases that are kept as files, one a line: what once found something, and one for every kind of verdict. */
import { readFileSync, writeFileSync } from 'node:fs'
import { seededRandom, randomConnectionCase, randomDecoderCase, type ConnectionCase, type DecoderCase, type SeededRandom } from './inputs.ts'
import { playConnection, playDecoder, type Played } from './play.ts'

/** One kind of fuzz: how its cases are made, played and kept. */
export interface Target<C extends { readonly chunks: readonly unknown[] }> {
  readonly name: 'decoder' | 'connection'
  readonly make: (random: SeededRandom) => C
  readonly play: (given: C) => Played | Promise<Played>
}

export const DECODER: Target<DecoderCase> = { name: 'decoder', make: randomDecoderCase, play: playDecoder }
export const CONNECTION: Target<ConnectionCase> = { name: 'connection', make: randomConnectionCase, play: playConnection }

const fileOf = (name: string): URL => new URL(`corpus/${name}.jsonl`, import.meta.url)

export function readCorpus<C extends { readonly chunks: readonly unknown[] }>({ name }: Target<C>): C[] {
  return readFileSync(fileOf(name), 'utf8').split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as C)
}

export function writeCorpus<C extends { readonly chunks: readonly unknown[] }>({ name }: Target<C>, cases: readonly C[]): void {
  writeFileSync(fileOf(name), cases.map((each) => `${JSON.stringify(each)}\n`).join(''))
}

/** Seeds follow one another, so that a case is named by one number: `seededRandom(seed)` makes it. */
export function caseOf<C extends { readonly chunks: readonly unknown[] }>({ make }: Target<C>, seed: number): C {
  return make(seededRandom(seed))
}

/** A smaller case that does the same: chunks are left out as long as it does. */
export async function shrink<C extends { readonly chunks: readonly unknown[] }>(given: C, doesTheSame: (smaller: C) => Promise<boolean>): Promise<C> {
  let smallest = given
  for (let size = Math.ceil(given.chunks.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < smallest.chunks.length; ) {
      const smaller = { ...smallest, chunks: [...smallest.chunks.slice(0, at), ...smallest.chunks.slice(at + size)] }
      if (await doesTheSame(smaller)) smallest = smaller
      else at += size
    }
  }
  return smallest
}
