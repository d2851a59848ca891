import { createHmac, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { DeviceLevel, IMEngine, type TokenVerifier } from 'imengine'
import { levelStorage } from 'imengine/level'
import { attachNetServer } from 'imengine/net'

const SECRET = 'read me from your configuration'

function signatureOf(uid: string, expiresAtMs: number): Buffer {
  return createHmac('sha256', SECRET).update(`${uid}\n${expiresAtMs}`).digest()
}

// #region issue
/** Your login page hands this out: a token that says until when it holds, signed for one user. */
export function issueToken(uid: string, expiresAtMs: number): string {
  return `${expiresAtMs}.${signatureOf(uid, expiresAtMs).toString('base64url')}`
}
// #endregion

// #region verify
/** Needs no database: the signature says that we issued it. A verifier that does ask one returns a promise instead. */
const verifySignedToken: TokenVerifier = ({ uid, token }) => {
  const [expiry = '', signature = ''] = token.split('.')
  const presented = Buffer.from(signature, 'base64url')
  const expected = signatureOf(uid, Number(expiry))
  const isOurs = presented.length === expected.length && timingSafeEqual(presented, expected)
  if (!isOurs || Number(expiry) < Date.now()) return { ok: false } // CONNACK 2, then the socket closes
  return { ok: true, deviceLevel: DeviceLevel.Master } // a second phone ends the first one's connection
}
// #endregion

export async function start(wantedPort = 0, path = './data') {
  const engine = new IMEngine({ tokenVerifier: verifySignedToken, storage: levelStorage({ path }) })
  await engine.start()
  const server = createServer()
  attachNetServer(engine, server)
  await once(server.listen(wantedPort, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    close: async (): Promise<void> => {
      server.close()
      await engine.close()
    },
  }
}
