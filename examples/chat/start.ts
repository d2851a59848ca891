import { IMError } from 'imengine'
import { start, type Chat } from './server.ts'

const port = portFrom('PORT', 5001)
const tcpPort = portFrom('TCP_PORT', 5100)
const host = process.env.HOST ?? '127.0.0.1'
const dataDir = process.env.DATA_DIR || './data/chat'

let chat: Chat
try {
  chat = await start({ port, tcpPort, host, dataDir })
} catch (error) {
  if (error instanceof IMError && error.code === 'IM_STORE_LOCKED') {
    console.error(`Another chat is running with the folder ${dataDir}. Stop it, or give this one a folder and ports of its own:`)
    console.error(`DATA_DIR=${dataDir}-2 PORT=${beside(port)} TCP_PORT=${beside(tcpPort)} npm start`)
    process.exit(1)
  }
  const { code, port: taken } = error as NodeJS.ErrnoException & { port?: number }
  if (code !== 'EADDRINUSE') throw error
  const [name, other] = taken === tcpPort ? ['TCP_PORT', tcpPort + 1] : ['PORT', port + 1]
  console.error(`Port ${taken} is taken. Choose another one, for example: ${name}=${other} npm start`)
  process.exit(1)
}

const shown = host === '127.0.0.1' || host === '0.0.0.0' || host === '::' ? 'localhost' : host
console.log(`
  imengine chat is running

    Page       http://${shown}:${chat.port}
    WebSocket  ws://${shown}:${chat.port}/ws
    TCP        ${shown}:${chat.tcpPort}
    Data       ${dataDir}

  Open the page in two tabs under two names. Ctrl+C stops it; what was said is there at the next start.
`)

let stopping = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The second signal does not wait for anything.
    if (stopping) process.exit(1)
    stopping = true
    console.log('Closing …')
    chat.close().catch((error: unknown) => {
      console.error(error)
      process.exitCode = 1
    })
  })
}

/** A port that the chat that is running has not taken with either of its own, most likely. */
function beside(taken: number): number {
  return taken === 0 ? 0 : taken + 10
}

function portFrom(name: string, fallback: number): number {
  const text = process.env[name]
  if (text === undefined || text === '') return fallback
  const value = Number(text)
  if (Number.isInteger(value) && value >= 0 && value <= 65_535) return value
  console.error(`${name} is "${text}", which is not a port number.`)
  process.exit(1)
}
