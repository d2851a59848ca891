import { createServer as createHTTPServer, type IncomingMessage, type Server as HTTPServer, type ServerResponse } from 'node:http'
import { createServer as createTCPServer, type AddressInfo, type Server as TCPServer } from 'node:net'
import { join as joinPath } from 'node:path'
import { ChannelType, DeviceLevel, IMEngine, ReasonCode, refuse, type IMEngineOptions } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'
import { attachWebSocketServer } from 'imengine/ws'
import { WebSocketServer } from 'ws'
import { ChatAPI } from './api.ts'
import { contentOf } from './content.ts'
import { Refusal, SECURITY_HEADERS, sendFailure } from './http.ts'
import { bundlePage, type Asset } from './page-bundle.ts'
import { People, type AccountBook, type PeopleOptions } from './people.ts'
import { SharedPeople } from './shared-people.ts'
import { LOBBY, MAX_TEXT_CHARS, SYSTEM_UID, type Person } from './wire.ts'

export interface ChatOptions {
  /** HTTP and WebSocket; 0 for any free port */
  readonly port: number
  /** wkproto over TCP, for the native SDKs; 0 for any free port */
  readonly tcpPort: number
  /** default: this machine only */
  readonly host?: string
  /** where everything is that outlives the process, made when it is not there; default ./data/chat */
  readonly dataDir?: string
  /**
   * Default 'none': this page asks for what it missed, and for more of it only when somebody scrolls there. It has to ask
   * anyway, because a tab that is new has nothing, not even what another device has acknowledged; with 'push' the same
   * messages would come twice, and those of a long absence oldest first. For clients without a history of their own, a bot
   * for example, 'push' is right. The page shows the same with either.
   */
  readonly offline?: NonNullable<IMEngineOptions['offline']>
  readonly people?: PeopleOptions
  /** this chat is one node of several: what `natsCluster` gives. Accounts are then kept in the log, and hold on all nodes */
  readonly cluster?: ChatNode
}

export type ChatNode = Required<Pick<IMEngineOptions, 'nodeID' | 'replicator' | 'presence' | 'peerPush'>>

export interface Chat {
  readonly port: number
  readonly tcpPort: number
  readonly engine: IMEngine
  close(): Promise<void>
}

/**
 * A whole chat: the engine with WebSocket and TCP in front of it, the page, and the little HTTP a host adds itself.
 * @throws IMError IM_STORE_LOCKED when another process has the folder, EADDRINUSE when one has a port
 */
export async function start(options: ChatOptions): Promise<Chat> {
  const { port, tcpPort, host = '127.0.0.1', dataDir = './data/chat', offline = 'none', people: peopleOptions, cluster } = options
  const assets = await bundlePage()

  const engine: IMEngine = new IMEngine({
    nodeID: 1,
    ...cluster,
    storage: levelStorage({ path: joinPath(dataDir, 'messages') }),
    offline,
    // Master: who signs in a second time takes the place of the first, and the first is told so.
    tokenVerifier: ({ uid, token }) => (people.isTokenOf({ uid, token }) ? { ok: true, deviceLevel: DeviceLevel.Master } : { ok: false }),
    limits: { maxSendsPerSecond: 50 },
  })
  const people: AccountBook = cluster === undefined ? new People(joinPath(dataDir, 'people.json'), peopleOptions) : new SharedPeople(engine, peopleOptions)
  // The rules of this chat, as a step of the engine's own chain: the sender is told the reason, nobody else hears of it.
  engine.use('EventOnSend', function checkRules({ frame, payload }) {
    if (frame.channelType === ChannelType.Person && !people.has(frame.channelID)) return refuse(ReasonCode.ChannelNotExist)
    const { type, content } = contentOf(payload)
    if (type !== 1 || typeof content !== 'string' || content.length > MAX_TEXT_CHARS) return refuse(ReasonCode.NotAllowSend)
  }, { after: 'checkPermission' })
  engine.on('connected', (connection) => people.connected(connection))
  engine.on('disconnected', (connection) => people.disconnected(connection))
  engine.on('error', (error) => console.error(error.code, error.message, error.context, error.cause ?? ''))
  people.onChange((person) => {
    if (person.left) leave(person).catch((error: unknown) => console.error('could not remove', person.uid, error))
  })
  // From here on the folder is ours alone, with the file of people in it.
  await engine.start()
  try {
    await people.open()
    await engine.channels.create(LOBBY)
    // Sent once in the life of the folder: at the next start the number says that it is there. Other words need another one.
    const welcome = { fromUID: SYSTEM_UID, clientMsgNo: 'welcome-1', payload: textPayload('Welcome! Everybody who signs in is in this room.') }
    await engine.messages.send({ ...LOBBY, ...welcome })
  } catch (error) {
    people.close()
    await engine.close()
    throw error
  }

  /** What was said before they came is there to be read, but not new to them: the engine sees to that. */
  async function join({ uid }: Person): Promise<void> {
    await engine.channels.subscribers.add(LOBBY, [uid])
  }

  async function leave({ uid }: Person): Promise<void> {
    await engine.channels.subscribers.remove(LOBBY, [uid])
    engine.connections.kick({ uid }, 'signed out')
  }

  const api = new ChatAPI({ engine, people, join, hasSeveralAddresses: cluster !== undefined })
  const http = createHTTPServer((request, response) => void answer(request, response, { api, assets }))
  const wss = new WebSocketServer({ server: http, path: '/ws', maxPayload: 1 << 20 })
  // Errors of the HTTP server reach the WebSocket server too; `listen` below reports them.
  wss.on('error', () => undefined)
  attachWebSocketServer(engine, wss)
  const tcp = createTCPServer({ noDelay: true })
  attachNetServer(engine, tcp)

  async function close(): Promise<void> {
    api.close()
    people.close()
    const closed = [stopped(http), stopped(tcp)]
    wss.close()
    await engine.close({ drainMs: 5000 })
    http.closeAllConnections()
    await Promise.all(closed)
    await people.save()
  }

  try {
    return { port: await listen(http, port, host), tcpPort: await listen(tcp, tcpPort, host), engine, close }
  } catch (error) {
    await close()
    throw error
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, { api, assets }: { api: ChatAPI; assets: ReadonlyMap<string, Asset> }): Promise<void> {
  for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value)
  try {
    // Only path and query count; the host is whatever this server is reached by.
    if (!URL.canParse(request.url ?? '/', 'http://chat')) throw new Refusal(400, 'bad-address', 'This is not an address.')
    const url = new URL(request.url ?? '/', 'http://chat')
    const asset = assets.get(url.pathname)
    if (asset === undefined) await api.handle(request, response, url)
    else sendAsset(request, response, asset)
  } catch (error) {
    if (!(error instanceof Refusal)) console.error('request failed:', error)
    sendFailure(response, error)
  }
}

function sendAsset(request: IncomingMessage, response: ServerResponse, { contentType, body, gzip, etag }: Asset): void {
  if (request.method !== 'GET' && request.method !== 'HEAD') throw new Refusal(405, 'bad-method', 'This is not how to ask for it.', { allow: 'GET, HEAD' })
  response.setHeader('etag', etag).setHeader('cache-control', 'no-cache').setHeader('vary', 'accept-encoding')
  if (request.headers['if-none-match'] === etag) {
    response.writeHead(304).end()
    return
  }
  const zipped = /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))
  if (zipped) response.setHeader('content-encoding', 'gzip')
  const bytes = zipped ? gzip : body
  response.writeHead(200, { 'content-type': contentType, 'content-length': bytes.length })
  response.end(request.method === 'HEAD' ? undefined : bytes)
}

function textPayload(content: string): Uint8Array {
  return Buffer.from(JSON.stringify({ type: 1, content }))
}

/** @returns the port, which is a free one when `port` was 0. Rejects with the system's error, EADDRINUSE most likely. */
function listen(server: HTTPServer | TCPServer, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve((server.address() as AddressInfo).port)
    })
  })
}

function stopped(server: HTTPServer | TCPServer): Promise<void> {
  return new Promise((resolve) => {
    if (server.listening) server.close(() => resolve())
    else resolve()
  })
}
