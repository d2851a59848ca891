/** The payload encryption, from its description and node:crypto alone. Source: wkproto 10. */
import { createCipheriv, createDecipheriv, createHash, createPrivateKey, createPublicKey, diffieHellman } from 'node:crypto'

const PRIVATE_HEAD = Buffer.from('302e020100300506032b656e04220420', 'hex')
const PUBLIC_HEAD = Buffer.from('302a300506032b656e032100', 'hex')
const PRIVATE_KEY = Buffer.alloc(32, 0x42)

function privateKey(): ReturnType<typeof createPrivateKey> {
  return createPrivateKey({ key: Buffer.concat([PRIVATE_HEAD, PRIVATE_KEY]), format: 'der', type: 'pkcs8' })
}

/** The key that all clients of the fuzz have: their CONNECTs are bytes in a file. */
export const CLIENT_KEY = createPublicKey(privateKey()).export({ format: 'der', type: 'spki' }).subarray(-32).toString('base64')

/** base64 that is one: the alphabet, whole groups, padding where it belongs, and no stray bits in front of it. */
export function strictBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : undefined
}

/** Can a key be agreed on with it? 32 bytes, and no point of low order, from which everybody knows the secret. */
export function isUsableKey(clientKey: string): boolean {
  const bytes = strictBase64(clientKey)
  if (bytes?.length !== 32) return false
  try {
    return !secretWith(bytes).every((byte) => byte === 0)
  } catch {
    return false
  }
}

/** The same point has two spellings: the top bit says nothing. */
export function isOurKey(clientKey: string): boolean {
  const [ours, given] = [CLIENT_KEY, clientKey].map((text) => Buffer.from(text, 'base64')) as [Buffer, Buffer]
  if (given.length !== 32) return false
  given[31]! &= 0x7f
  return ours.equals(given)
}

function secretWith(publicBytes: Uint8Array): Buffer {
  return diffieHellman({ privateKey: privateKey(), publicKey: createPublicKey({ key: Buffer.concat([PUBLIC_HEAD, publicBytes]), format: 'der', type: 'spki' }) })
}

interface Signed {
  readonly clientSeq: number
  readonly clientMsgNo: string
  readonly channelID: string
  readonly channelType: number
}

export class ReferenceCipher {
  readonly #key: Buffer
  readonly #iv: Buffer

  constructor(serverKey: string, salt: string) {
    const secret = secretWith(Buffer.from(serverKey, 'base64')).toString('base64')
    this.#key = Buffer.from(createHash('md5').update(secret).digest('hex').slice(0, 16))
    this.#iv = Buffer.from(salt)
  }

  seal(plaintext: Uint8Array): Buffer {
    const cipher = createCipheriv('aes-128-cbc', this.#key, this.#iv)
    return Buffer.from(Buffer.concat([cipher.update(plaintext), cipher.final()]).toString('base64'))
  }

  msgKey({ clientSeq, clientMsgNo, channelID, channelType }: Signed, payload: Uint8Array): string {
    const signed = Buffer.concat([Buffer.from(`${clientSeq}${clientMsgNo}${channelID}${channelType}`), payload])
    return createHash('md5').update(this.seal(signed)).digest('hex')
  }

  /** The plaintext; undefined when the msgKey is another one or the payload is not what the key made. */
  open(fields: Signed, payload: Buffer, msgKey: string): Buffer | undefined {
    if (msgKey !== this.msgKey(fields, payload)) return undefined
    const sealed = strictBase64(payload.toString('latin1'))
    if (sealed === undefined || sealed.length === 0 || sealed.length % 16 !== 0) return undefined
    try {
      const decipher = createDecipheriv('aes-128-cbc', this.#key, this.#iv)
      return Buffer.concat([decipher.update(sealed), decipher.final()])
    } catch {
      return undefined
    }
  }
}
