/** Connections that are opened and then do nothing. */
import { senderUID, type IdleJob } from '../wire.ts'
import { logIn } from './im-client.ts'
import { Link } from './link.ts'
import type { Span } from './traffic.ts'

const OPEN_AT_ONCE = 100

/** `span.begin` before the first is opened, `span.end` when all are there. They stay until the process ends. */
export async function runIdle({ transport, encryption, port, connectionCount, logsIn }: IdleJob, span: Span): Promise<void> {
  span.begin()
  let fail: (error: Error) => void = () => undefined
  const failed = new Promise<never>((_, reject) => {
    fail = reject
  })
  for (let first = 0; first < connectionCount; first += OPEN_AT_ONCE) {
    const count = Math.min(OPEN_AT_ONCE, connectionCount - first)
    const opening = Array.from({ length: count }, (_, index) =>
      logsIn ? logIn({ port, transport, encryption, uid: senderUID(first + index), fail }) : Link.open({ port, transport, measureUnit: () => 0, fail }),
    )
    await Promise.race([Promise.all(opening), failed])
  }
  failed.catch(() => undefined)
  span.end()
}
