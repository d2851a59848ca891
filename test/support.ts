import { afterEach } from 'vitest'
import { allowAnyToken, ChannelType, IMEngine, type IMEngineOptions, type IMError, type MessageStore, type Storage } from 'imengine'
import { connectTestClient, FakeClock, seededRandom, type ConnectedTestClient, type ConnectTestClientOptions } from 'imengine/testing'

export const TEAM = { channelID: 'team', channelType: ChannelType.Group }

export interface Stage {
  readonly engine: IMEngine
  readonly clock: FakeClock
  /** every 'error' fact so far */
  readonly errors: IMError[]
  connect(uid: string, options?: Partial<ConnectTestClientOptions>): Promise<ConnectedTestClient>
}

const stages: Stage[] = []

// One engine left open would be found by the next test file only.
afterEach(async () => {
  for (const { engine, clock } of stages.splice(0)) {
    const closing = engine.close({ drainMs: 0 })
    await clock.advance(engine.limits.closeTimeoutMs + 1_000) // for clients that do not read
    await closing
  }
})

/** A running engine in virtual time with the group "team" of ann, bob and cat; closed after the test. */
export async function stage(options: Partial<IMEngineOptions> = {}): Promise<Stage> {
  const clock = new FakeClock()
  const engine = new IMEngine({ tokenVerifier: allowAnyToken(), clock, random: seededRandom(1), ...options })
  const errors: IMError[] = []
  engine.on('error', (error) => errors.push(error))
  await engine.start()
  await engine.channels.create(TEAM, { subscribers: ['ann', 'bob', 'cat'] })
  const made: Stage = {
    engine,
    clock,
    errors,
    connect: (uid, connectOptions) => connectTestClient(engine, { uid, ...connectOptions }),
  }
  stages.push(made)
  return made
}

/** A promise and the functions that settle it. */
export function deferred<T = void>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (reason: unknown) => void } {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  return { promise, resolve, reject }
}

/** `storage` with some methods of its message store replaced. */
export function storageWith(storage: Storage, methods: Partial<MessageStore>): Storage {
  const { messages } = storage
  return {
    ...storage,
    messages: {
      append: (batches) => messages.append(batches),
      range: (key, query) => messages.range(key, query),
      lastSeq: (key) => messages.lastSeq(key),
      findByClientMsgNo: (key, fromUID, clientMsgNo) => messages.findByClientMsgNo(key, fromUID, clientMsgNo),
      get: (messageIDs) => messages.get(messageIDs),
      truncate: (key, beforeSeq) => messages.truncate(key, beforeSeq),
      summaries: (uid, keys) => messages.summaries(uid, keys),
      countAfter: (key, afterSeq) => messages.countAfter(key, afterSeq),
      personChannelsOf: (uid, query) => messages.personChannelsOf(uid, query),
      revise: (key, messageSeq, change) => messages.revise(key, messageSeq, change),
      ...(messages.sweep !== undefined && { sweep: messages.sweep.bind(messages) }),
      ...methods,
    },
  }
}
