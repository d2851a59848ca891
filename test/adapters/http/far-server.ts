import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import type { Message, WebhookEvent } from 'imengine'

export interface FarRequest {
  readonly method: string
  /** path and query */
  readonly url: string
  /** the query's `event` */
  readonly event: string | null
  readonly headers: IncomingHttpHeaders
  readonly body: string
  readonly response: ServerResponse
  /** aborted when the asker has hung up */
  readonly signal: AbortSignal
}

export interface FarServer {
  readonly port: number
  readonly url: string
  readonly requests: FarRequest[]
  readonly connectionCount: number
  close(): Promise<void>
}

/** A real server on 127.0.0.1 that hands every request, with its whole body, to `answer`; a throw of that is a 500. */
export async function farServer(answer: (request: FarRequest) => unknown, port = 0): Promise<FarServer> {
  const requests: FarRequest[] = []
  let connectionCount = 0
  const server = createServer((incoming, response) => void serve(incoming, response))
  server.on('connection', () => connectionCount++)
  async function serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const hungUp = new AbortController()
    response.on('close', () => hungUp.abort())
    const request: FarRequest = {
      method: incoming.method!, url: incoming.url!, event: new URL(incoming.url!, 'http://far').searchParams.get('event'),
      headers: incoming.headers, body: Buffer.concat(chunks).toString(), response, signal: hungUp.signal,
    }
    requests.push(request)
    try {
      await answer(request)
    } catch {
      if (!response.headersSent) response.writeHead(500).end('{"code":0}')
    }
  }
  await once(server.listen(port, '127.0.0.1'), 'listening')
  const bound = (server.address() as AddressInfo).port
  return {
    port: bound,
    url: `http://127.0.0.1:${bound}/hook`,
    requests,
    get connectionCount() {
      return connectionCount
    },
    close: async () => {
      server.closeAllConnections()
      if (!server.listening) return
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

export function reply({ response }: FarRequest, json: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(json))
}

/** A port on which nobody listens. */
export async function deafPort(): Promise<number> {
  const server = await farServer(() => undefined)
  await server.close()
  return server.port
}

interface WireMessage {
  readonly header: { readonly no_persist: number; readonly red_dot: number; readonly sync_once: number }
  readonly setting: number
  readonly message_idstr: string
  readonly client_msg_no: string
  readonly message_seq: number
  readonly from_uid: string
  readonly channel_id: string
  readonly channel_type: number
  readonly topic: string
  readonly expire: number
  readonly timestamp_ms: number
  readonly payload: string
}

function messageOf(wire: WireMessage): Message {
  return {
    messageID: wire.message_idstr, messageSeq: wire.message_seq, clientMsgNo: wire.client_msg_no, fromUID: wire.from_uid,
    channelID: wire.channel_id, channelType: wire.channel_type, payload: Buffer.from(wire.payload, 'base64'), timestampMs: wire.timestamp_ms,
    expireSec: wire.expire, topic: wire.topic, setting: wire.setting, noPersist: wire.header.no_persist === 1,
    redDot: wire.header.red_dot === 1, syncOnce: wire.header.sync_once === 1,
  }
}

type WireOffline = WireMessage & { readonly to_uids: string[]; readonly compress?: string; readonly compress_to_uids?: string }

interface WireStatus {
  readonly uid: string
  readonly device_flag: number
  readonly online: boolean
  readonly connection_id: string
  readonly device_online_count: number
  readonly online_count: number
}

/** The events of one POST, as a receiver reads them. */
export function eventsOf({ event, body }: FarRequest): WebhookEvent[] {
  const json = JSON.parse(body) as unknown
  if (event === 'msg.notify') return [{ event, messages: (json as WireMessage[]).map(messageOf) }]
  if (event === 'msg.offline') {
    const wire = json as WireOffline
    const uids = wire.compress === 'gzip' ? (JSON.parse(gunzipSync(Buffer.from(wire.compress_to_uids!, 'base64')).toString()) as string[]) : wire.to_uids
    return [{ event, message: messageOf(wire), uids }]
  }
  return (json as (string | WireStatus)[]).map((item): WebhookEvent => {
    if (typeof item !== 'string') {
      const { uid, device_flag: deviceFlag, online, connection_id: connectionID, device_online_count: deviceOnlineCount, online_count: onlineCount } = item
      return { event: 'user.onlinestatus', uid, deviceFlag, online, connectionID, deviceOnlineCount, onlineCount }
    }
    const parts = item.split('-')
    const [flag, online, connectionID, deviceCount, count] = parts.splice(-5) as [string, string, string, string, string]
    return {
      event: 'user.onlinestatus', uid: parts.join('-'), deviceFlag: Number(flag), online: online === '1', connectionID,
      deviceOnlineCount: Number(deviceCount), onlineCount: Number(count),
    }
  })
}
