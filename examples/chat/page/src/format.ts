const DAY_MS = 86_400_000

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'short' })
const dayAndMonth = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })
const fullDay = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' })
const fullDayAndYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' })
const complete = new Intl.DateTimeFormat(undefined, { dateStyle: 'long', timeStyle: 'medium' })

export const timeOf = (ms: number): string => time.format(ms)
export const completeTimeOf = (ms: number): string => complete.format(ms)

export function startOfDay(ms: number): number {
  return new Date(ms).setHours(0, 0, 0, 0)
}

/** For the list: a time today, a weekday this week, a date before. */
export function shortTimeOf(ms: number, nowMs = Date.now()): string {
  const age = startOfDay(nowMs) - startOfDay(ms)
  if (age <= 0) return timeOf(ms)
  return age < 6.5 * DAY_MS ? weekday.format(ms) : dayAndMonth.format(ms)
}

/** For the line between two days. */
export function dayOf(ms: number, nowMs = Date.now()): string {
  // Half a day of slack: days are not all 24 hours long.
  const days = Math.round((startOfDay(nowMs) - startOfDay(ms)) / DAY_MS)
  if (days === 0) return 'Today'
  if (days === 1) return 'Yesterday'
  return days < 180 ? fullDay.format(ms) : fullDayAndYear.format(ms)
}

export function lastSeenText(ms: number, nowMs = Date.now()): string {
  const minutes = Math.floor((nowMs - ms) / 60_000)
  if (minutes < 1) return 'last seen just now'
  if (minutes < 60) return `last seen ${minutes} min ago`
  const day = dayOf(ms, nowMs)
  return `last seen ${day === 'Today' || day === 'Yesterday' ? day.toLowerCase() : dayAndMonth.format(ms)} at ${timeOf(ms)}`
}

export function initialsOf(name: string): string {
  const words = name.split(/[\s_.-]+/u).filter((word) => /[\p{L}\p{N}]/u.test(word))
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]]
  return letters.map((word) => Array.from(word ?? '')[0] ?? '').join('').toLocaleUpperCase() || '?'
}

/** One of eight colours, the same for a uid on every screen. */
export function toneOf(uid: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < uid.length; i++) hash = Math.imul(hash ^ uid.charCodeAt(i), 0x01000193)
  // The low bits of what there is so far hardly differ between similar names.
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  return ((hash ^ (hash >>> 12)) >>> 0) % 8
}
