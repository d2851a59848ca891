/**
 * Some seqs of a channel, each once, in ascending order. Counting and finding them is a binary search; adding the highest
 * one, which is the usual case, costs nothing more.
 */
export class SortedSeqs {
  #seqs: number[] = []

  add(seq: number): void {
    const index = this.#indexAbove(seq)
    if (this.#seqs[index - 1] !== seq) this.#seqs.splice(index, 0, seq)
  }

  delete(seq: number): void {
    const index = this.#indexAbove(seq) - 1
    if (this.#seqs[index] === seq) this.#seqs.splice(index, 1)
  }

  countAbove(seq: number): number {
    return this.#seqs.length - this.#indexAbove(seq)
  }

  /** those with `afterSeq` < seq <= `throughSeq` */
  between(afterSeq: number, throughSeq: number): number[] {
    return this.#seqs.slice(this.#indexAbove(afterSeq), this.#indexAbove(throughSeq))
  }

  /** The index of the first seq above `seq`. */
  #indexAbove(seq: number): number {
    let low = 0
    let high = this.#seqs.length
    if ((this.#seqs[high - 1] ?? -1) <= seq) return high
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#seqs[middle] ?? Infinity) > seq) high = middle
      else low = middle + 1
    }
    return low
  }
}
