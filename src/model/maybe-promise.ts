/** A value now or later. Hot contracts return it, so that an adapter which has the answer at hand costs no promise. */
export type MaybePromise<T> = T | Promise<T>

export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}
