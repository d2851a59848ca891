import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createNetServer, type AddressInfo } from 'node:net'
import { ChannelType, IMEngine } from 'imengine'
import { httpTokenVerifier, httpWebhook, verifyWebhookSignature } from 'imengine/http'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

const SECRET = 'whsec_cmVhZCBtZSBmcm9tIHlvdXIgY29uZmlndXJhdGlvbg=='

interface StoredMessage {
  readonly message_idstr: string
  readonly from_uid: string
  readonly channel_id: string
  readonly payload: string
}

// #region receive
const seen = new Set<string>()

/** A service of yours, in whatever language: it gets POSTs, and says 200 when it has taken one. */
async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks) // as it came: JSON that is parsed and written again is another text
  if (!verifyWebhookSignature({ secret: SECRET, headers: request.headers, body })) return void response.writeHead(401).end()

  const event = new URL(request.url ?? '/', 'http://here').searchParams.get('event')
  const answer = event === 'message.send' ? judge(body) : {}
  const id = String(request.headers['webhook-id'])
  if (event === 'msg.notify' && !seen.has(id)) {
    seen.add(id) // it may come again: keep the ids of a day or so, where your data is
    for (const { channel_id, from_uid, payload } of JSON.parse(body.toString()) as StoredMessage[]) {
      console.log(`${from_uid} in ${channel_id}: ${Buffer.from(payload, 'base64').toString()}`)
    }
  }
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
}
// #endregion

// #region judge
/** Asked before a message is accepted: 0 lets it pass, as it is or with another payload. */
function judge(body: Buffer): { code: number; message?: string; newPayload?: string } {
  const { payload } = JSON.parse(body.toString()) as { readonly payload: string }
  const text = Buffer.from(payload, 'base64').toString()
  if (text.includes('buy now')) return { code: 403, message: 'looks like spam' } // SENDACK 11
  return { code: 0, newPayload: Buffer.from(text.replaceAll('darn', '****')).toString('base64') }
}
// #endregion

/** Your login service, which knows the tokens. */
async function verify(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const { uid, token } = JSON.parse(Buffer.concat(chunks).toString()) as { readonly uid: string; readonly token: string }
  const isRight = token === `token-of-${uid}`
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(isRight ? { code: 0 } : { code: 1 }))
}

export async function start(wantedPort = 0, path = './data') {
  const service = createServer((request, response) => {
    ;(request.url === '/login' ? verify : receive)(request, response).catch(() => response.destroy())
  })
  await once(service.listen(0, '127.0.0.1'), 'listening')
  const url = `http://127.0.0.1:${(service.address() as AddressInfo).port}`

  // #region engine
  const engine = new IMEngine({
    storage: levelStorage({ path }),
    tokenVerifier: httpTokenVerifier({ url: `${url}/login`, cacheMs: 60_000 }),
    webhook: httpWebhook({ url: `${url}/im`, secret: SECRET, beforeSend: true }),
  })
  engine.on('webhookGivenUp', ({ events, error }) => console.error(`${events.length} events were never taken`, error.code))
  // #endregion
  await engine.start()
  await engine.channels.create({ channelID: 'team', channelType: ChannelType.Group }, { subscribers: ['ann', 'bob'] })

  const server = createNetServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    close: async (): Promise<void> => {
      server.close()
      await engine.close() // while the service still listens: it hears what is left
      service.closeAllConnections()
      service.close()
    },
  }
}
