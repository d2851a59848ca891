/** Where message ids come from: unique in the cluster, growing on one node, decimal strings of a positive int64. */
export interface IDSource {
  next(): string
}
