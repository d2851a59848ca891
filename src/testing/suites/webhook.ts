import assert from 'node:assert/strict'
import type { BeforeSendAnswer, BeforeSendRequest, Webhook, WebhookEvent } from '../../contracts/webhook.ts'
import type { MaybePromise } from '../../model/maybe-promise.ts'
import { started, type ContractCase, type Opened } from './contract-case.ts'
import { assertSameMessages, HOSTILE_IDS, sampleMessages } from './samples.ts'

/** The host's end, as the suite plays it. */
export type WebhookFarEnd = Required<Omit<Webhook, 'events'>>

export interface WebhookContractOptions {
  /**
   * Open a Webhook whose calls end in `far`: for one that posts to a server, start a server that asks `far` and answers
   * with what it says. A throw of `far` is the server's failure, a promise that stays open its silence.
   */
  open(far: WebhookFarEnd): MaybePromise<Opened<Webhook>>
}

/** The promises of a Webhook, as far as it offers the two methods. */
export function webhookContract({ open }: WebhookContractOptions): ContractCase[] {
  return scenarios.map(([name, check]) => ({
    name,
    run: async () => {
      const far = new ScriptedFarEnd()
      const opened = await open({
        beforeSend: (request, signal) => far.answer(request, signal),
        notify: (events) => far.take(events),
      })
      try {
        await check(opened.subject, far)
      } finally {
        far.release()
        await opened.close?.()
      }
    },
  }))
}

/** Answers as the case wants it to, and remembers what it was asked. */
class ScriptedFarEnd {
  readonly asked: BeforeSendRequest[] = []
  readonly told: WebhookEvent[] = []
  answer: (request: BeforeSendRequest, signal: AbortSignal) => MaybePromise<BeforeSendAnswer> = () => ({ code: 0 })
  onEvents: () => MaybePromise<void> = () => {}
  /** ends every silence, so that a server behind the webhook can be closed */
  release: () => void = () => {}
  readonly silence = new Promise<void>((resolve) => {
    this.release = resolve
  })

  async take(events: readonly WebhookEvent[]): Promise<void> {
    await this.onEvents()
    this.told.push(...events)
  }
}

function request(over: Partial<BeforeSendRequest> = {}): BeforeSendRequest {
  return {
    fromUID: 'ann',
    deviceFlag: 1,
    channelID: 'room',
    channelType: 2,
    clientMsgNo: 'no-1',
    payload: Buffer.from('hello'),
    ...over,
  }
}

const never = (): AbortSignal => new AbortController().signal
const hexOf = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString('hex')
const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, i) => i)

type Check = (webhook: Webhook, far: ScriptedFarEnd) => Promise<void>

const scenarios: readonly (readonly [name: string, check: Check])[] = [
  [
    'beforeSend: the host is asked once, with every field as it was, whatever the text and the bytes',
    async (webhook, far) => {
      if (webhook.beforeSend === undefined) return
      far.answer = (asked) => {
        far.asked.push(asked)
        return { code: 0 }
      }
      const requests = [
        request({ payload: ALL_BYTES }),
        request({ payload: new Uint8Array(0), deviceFlag: 0, clientMsgNo: '' }),
        ...HOSTILE_IDS.map((id) => request({ fromUID: id, channelID: id, clientMsgNo: id })),
      ]
      for (const one of requests) await webhook.beforeSend(one, never())
      const comparable = (one: BeforeSendRequest): unknown => ({ ...one, payload: hexOf(one.payload) })
      assert.deepEqual(far.asked.map(comparable), requests.map(comparable))
    },
  ],
  [
    'beforeSend: the host decides: its code, message, extra and new payload come back',
    async (webhook, far) => {
      if (webhook.beforeSend === undefined) return
      const answers: BeforeSendAnswer[] = [
        { code: 0 },
        { code: 403, message: 'no ünkind words' },
        { code: 0, extra: { score: 0.5, tags: ['a', null], nested: { deep: true } } },
        { code: 0, newPayload: ALL_BYTES },
        { code: 0, newPayload: new Uint8Array(0) },
      ]
      for (const expected of answers) {
        far.answer = () => expected
        const answer = await webhook.beforeSend(request(), never())
        assert.equal(answer.code, expected.code)
        assert.equal(answer.message ?? '', expected.message ?? '')
        assert.deepEqual(answer.extra, expected.extra)
        assert.equal(hexOf(answer.newPayload), hexOf(expected.newPayload))
      }
    },
  ],
  [
    'beforeSend: requests that overlap each get their own answer',
    async (webhook, far) => {
      const { beforeSend } = webhook
      if (beforeSend === undefined) return
      far.answer = (asked) => ({ code: Number(asked.clientMsgNo) })
      const codes = Array.from({ length: 20 }, (_, i) => i)
      const asked = codes.map((code) =>
        started(() => beforeSend.call(webhook, request({ clientMsgNo: String(code) }), never())),
      )
      assert.deepEqual((await Promise.all(asked)).map((answer) => answer.code), codes)
    },
  ],
  [
    'beforeSend: the failure of the host is a rejection, never an answer',
    async (webhook, far) => {
      const { beforeSend } = webhook
      if (beforeSend === undefined) return
      far.answer = () => {
        throw new Error('the host is broken')
      }
      await assert.rejects(started(() => beforeSend.call(webhook, request(), never())))
      far.answer = () => ({ code: 0 })
      assert.equal((await beforeSend.call(webhook, request(), never())).code, 0)
    },
  ],
  [
    'beforeSend: the wait for a silent host ends in a rejection when its signal is aborted',
    async (webhook, far) => {
      const { beforeSend } = webhook
      if (beforeSend === undefined) return
      const patience = new AbortController()
      far.answer = async (_request, signal) => {
        patience.abort()
        await Promise.race([far.silence, abortOf(signal)])
        throw new Error('given up')
      }
      await assert.rejects(started(() => beforeSend.call(webhook, request(), patience.signal)))
    },
  ],
  [
    'notify: the host is told of every event, in order, with every field as it was',
    async (webhook, far) => {
      if (webhook.notify === undefined) return
      const messages = sampleMessages(1, 3, { payload: ALL_BYTES }).map((message, i) => ({ ...message, messageSeq: i + 1 }))
      const online = { event: 'user.onlinestatus', uid: 'ünal', deviceFlag: 1, online: true, connectionID: 'c1', deviceOnlineCount: 1, onlineCount: 2 } as const
      const offline = { ...online, online: false }
      await webhook.notify([{ event: 'msg.notify', messages: messages.slice(0, 2) }, online], never())
      await webhook.notify([offline, { event: 'msg.notify', messages: messages.slice(2) }], never())
      const told = far.told.flatMap((event) => (event.event === 'msg.notify' ? event.messages : []))
      assertSameMessages(told, messages)
      const status = far.told.flatMap((event) => (event.event === 'user.onlinestatus' ? [{ ...event }] : []))
      assert.deepEqual(status, [online, offline])
    },
  ],
  [
    'notify: the failure of the host is a rejection',
    async (webhook, far) => {
      const { notify } = webhook
      if (notify === undefined) return
      far.onEvents = () => {
        throw new Error('the host is broken')
      }
      const events: WebhookEvent[] = [{ event: 'msg.notify', messages: sampleMessages(1, 1) }]
      await assert.rejects(started(() => notify.call(webhook, events, never())))
    },
  ],
]

function abortOf(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
