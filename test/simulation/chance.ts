import { seededRandom, type SeededRandom } from 'imengine/testing'

/** Chance of one part of a run. Parts draw apart from each other, so that what is left out of a plan moves the dice of nobody else. */
export interface Chance extends SeededRandom {
  happens(probability: number): boolean
  /** an integer, both ends included */
  between(least: number, most: number): number
  /** the chance of a part, the same for the same label */
  of(label: string): Chance
}

export function chanceOf(seed: number, label = ''): Chance {
  const random = seededRandom(seed ^ fnv1a(label))
  return {
    ...random,
    happens: (probability) => random.below(1_000_000) < probability * 1_000_000,
    between: (least, most) => least + random.below(most - least + 1),
    of: (part) => chanceOf(seed, `${label}/${part}`),
  }
}

function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return hash
}
