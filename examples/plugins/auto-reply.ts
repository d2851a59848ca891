import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { allowAnyToken, ChannelType, IMEngine, IMError, personChannelUIDs, type Message, type Plugin } from 'imengine'
import { attachNetServer } from 'imengine/net'

export interface AutoReplyOptions {
  /** who answers; a user like any other, whom everybody can write to */
  readonly uid: string
  /** the first rule with a keyword in the text, without regard to case, has the answer */
  readonly rules: readonly { readonly keywords: readonly string[]; readonly answer: string }[]
  /** when no rule fits; without it there is no answer then */
  readonly otherwise?: string
}

// #region auto-reply
/** A bot in its person channels: whoever writes to it is answered by rule, once for every message. */
export function autoReply({ uid, rules, otherwise }: AutoReplyOptions): Plugin {
  function answerTo(message: Message): string | undefined {
    const text = textOf(message.payload).toLowerCase()
    return rules.find(({ keywords }) => keywords.some((keyword) => text.includes(keyword.toLowerCase())))?.answer ?? otherwise
  }

  return {
    name: `auto-reply of ${uid}`,
    setup(host) {
      async function reply(message: Message): Promise<void> {
        const content = answerTo(message)
        if (content === undefined) return
        try {
          await host.messages.send({
            channelID: message.fromUID,
            channelType: ChannelType.Person,
            fromUID: uid,
            payload: Buffer.from(JSON.stringify({ type: 1, content })),
            clientMsgNo: `answer-to-${message.messageID}`, // a message that is heard of twice is answered once
            replyTo: message,
          })
        } catch (error) {
          // Bots among themselves: somebody has to be silent. Anything else is reported for us.
          if (!(error instanceof IMError && error.code === 'IM_SEND_DEPTH')) throw error
          host.logger.info({ uid: message.fromUID, channelID: message.channelID }, 'not answered: bots talk to each other')
        }
      }
      host.on('messageStored', async ({ key, messages }) => {
        if (key.channelType !== ChannelType.Person || !personChannelUIDs(key.channelID)?.includes(uid)) return
        await Promise.all(messages.filter(({ fromUID }) => fromUID !== uid).map(reply))
      })
    },
  }
}
// #endregion

/** As client SDKs write a text, or a payload that is plain text. */
function textOf(payload: Uint8Array): string {
  const whole = Buffer.from(payload).toString()
  try {
    const json: unknown = JSON.parse(whole)
    if (typeof json === 'object' && json !== null) return 'content' in json && typeof json.content === 'string' ? json.content : ''
  } catch {
    // Not JSON.
  }
  return whole
}

export async function start(wantedPort = 0) {
  const engine = new IMEngine({ tokenVerifier: allowAnyToken() })
  const rules = [{ keywords: ['opening hours', 'open'], answer: 'From nine to five.' }]
  engine.use(autoReply({ uid: 'helpdesk', rules, otherwise: 'Somebody will answer you soon.' }))
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
