/** CONNECTs at fixed times, each on a connection of its own: what everybody does at once after a network fault. */
import { performance } from 'node:perf_hooks'
import { ClientKeyAgreement, FrameDecoder, FrameType, ReasonCode } from 'imengine/protocol'
import { senderUID, type StormJob, type StormResult } from '../wire.ts'
import { Histogram } from './histogram.ts'
import { connectFrame, measureFrame } from './im-client.ts'
import { Link } from './link.ts'
import type { Span } from './traffic.ts'

/** The client's half of the agreement is finished for one of so many; the server does its own for all of them. */
const SAMPLE_EVERY = 100
/** Keys made beforehand, used in turn: making one costs as much as all the rest of a CONNECT. */
const KEY_COUNT = 64
const TIMEOUT_MS = 60_000

/** @throws when a connection is refused, breaks, or has no CONNACK within a minute */
export async function runStorm({ transport, encryption, port, connectCount, connectsPerSecond }: StormJob, span: Span): Promise<StormResult> {
  const keys = encryption === 'on' ? Array.from({ length: KEY_COUNT }, () => new ClientKeyAgreement()) : []
  const times = new Histogram()
  const links: Link[] = []
  let fail: (error: Error) => void = () => undefined
  let done: () => void = () => undefined
  const ended = new Promise<void>((resolve, reject) => {
    done = resolve
    fail = reject
  })
  const open = async (index: number, dueMs: number): Promise<void> => {
    const link = await Link.open({ port, transport, measureUnit: measureFrame, fail })
    links.push(link)
    const agreement = keys[index % KEY_COUNT]
    link.onUnit = (bytes, from, to) => {
      times.add(performance.now() - dueMs)
      new FrameDecoder({ version: 5 }).feed(bytes.subarray(from, to), (frame) => {
        if (frame.type !== FrameType.CONNACK || frame.reasonCode !== ReasonCode.Success) throw new Error(`CONNECT ${index} was refused`)
        if (agreement !== undefined && index % SAMPLE_EVERY === 0) agreement.complete(frame.serverKey, frame.salt)
      })
      if (times.count === connectCount) done()
    }
    link.write(link.pack(connectFrame(senderUID(index), agreement?.clientKey ?? '')))
    link.flush()
  }
  const cpu = process.cpuUsage()
  const startMs = performance.now()
  span.begin()
  let next = 0
  const tick = (): void => {
    const nowMs = performance.now()
    for (; next < connectCount && startMs + (next * 1000) / connectsPerSecond <= nowMs; next++) {
      open(next, startMs + (next * 1000) / connectsPerSecond).catch(fail)
    }
    if (next < connectCount) setTimeout(tick, 1)
  }
  tick()
  const late = setTimeout(() => fail(new Error(`${connectCount - times.count} of ${connectCount} CONNECTs were not answered`)), TIMEOUT_MS)
  try {
    await ended
  } finally {
    clearTimeout(late)
    for (const link of links) link.forget()
  }
  const seconds = (performance.now() - startMs) / 1000
  const { user, system } = process.cpuUsage(cpu)
  span.end()
  return { connectsPerSecond: connectCount / seconds, loadCPU: (user + system) / 1e6 / seconds, connackMs: times.quantiles() }
}
