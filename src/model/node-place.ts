/** Multiples of it, modulo 1, are far from one another, however many there are. */
const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2

/** Where in a period a node does what all do once in it, so that they do not at the same moment: from 0 up to 1. */
export function placeOf(nodeID: number): number {
  return (nodeID * GOLDEN_RATIO) % 1
}
