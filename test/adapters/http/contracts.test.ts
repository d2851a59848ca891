import { describe, it } from 'vitest'
import type { BeforeSendRequest } from 'imengine'
import { httpTokenVerifier, httpWebhook } from 'imengine/http'
import { tokenVerifierContract, webhookContract, type ContractCase } from 'imengine/testing'
import { eventsOf, farServer, reply, type FarRequest } from './far-server.ts'

function run(name: string, cases: readonly ContractCase[]): void {
  describe(name, () => {
    for (const contractCase of cases) it(contractCase.name, contractCase.run)
  })
}

interface WireQuestion {
  readonly from_uid: string
  readonly device_flag: number
  readonly channel_id: string
  readonly channel_type: number
  readonly client_msg_no: string
  readonly payload: string
}

function questionOf({ body }: FarRequest): BeforeSendRequest {
  const wire = JSON.parse(body) as WireQuestion
  return {
    fromUID: wire.from_uid, deviceFlag: wire.device_flag, channelID: wire.channel_id, channelType: wire.channel_type,
    clientMsgNo: wire.client_msg_no, payload: Buffer.from(wire.payload, 'base64'),
  }
}

for (const statusFormat of ['legacy', 'object'] as const) {
  run(
    `httpWebhook, ${statusFormat}`,
    webhookContract({
      open: async (far) => {
        const server = await farServer(async (request) => {
          if (request.event !== 'message.send') {
            await far.notify(eventsOf(request), request.signal)
            return reply(request, {})
          }
          const { newPayload, ...answer } = await far.beforeSend(questionOf(request), request.signal)
          reply(request, { ...answer, ...(newPayload !== undefined && { newPayload: Buffer.from(newPayload).toString('base64') }) })
        })
        return { subject: httpWebhook({ url: server.url, beforeSend: true, secret: 'a secret', statusFormat }), close: () => server.close() }
      },
    }),
  )
}

const accepted = [
  { uid: 'ann', token: 'token of ann', deviceLevel: 1 },
  { uid: 'bob', token: 'ünïcode 👩‍👩‍👧', deviceLevel: 0 },
] as const

for (const cacheMs of [0, 60_000]) {
  run(
    `httpTokenVerifier, cacheMs ${cacheMs}`,
    tokenVerifierContract({
      accepted,
      open: async () => {
        const server = await farServer((request) => {
          const { uid, token } = JSON.parse(request.body) as { readonly uid: string; readonly token: string }
          const known = accepted.find((sample) => sample.uid === uid && sample.token === token)
          reply(request, known === undefined ? { code: 401, message: 'wrong token' } : { code: 0, deviceLevel: known.deviceLevel })
        })
        return { subject: httpTokenVerifier({ url: server.url, cacheMs }), close: () => server.close() }
      },
    }),
  )
}
