/**
 * One user of the client SDK as it comes from npm, in a process of its own: the SDK is one object per process. Driven by
 * `SDKClient` of `sdk-process.ts` over IPC; everything the SDK tells its listeners goes back unchanged.
 */
import { Channel, MessageText, WKSDK } from 'wukongimjssdk/lib/sdk'
import { WebSocket } from 'ws'

export type Command =
  | { readonly do: 'connect'; readonly addr: string; readonly uid: string; readonly token: string }
  | { readonly do: 'send'; readonly channelID: string; readonly channelType: number; readonly texts: readonly string[] }
  | { readonly do: 'disconnect' }

export type Report =
  | { readonly is: 'ready' }
  /** of ConnectStatus: 0 disconnected, 1 connected, 3 refused, 4 kicked */
  | { readonly is: 'status'; readonly status: number; readonly reasonCode: number }
  | { readonly is: 'message'; readonly messageID: string; readonly messageSeq: number; readonly clientMsgNo: string; readonly fromUID: string; readonly channelID: string; readonly channelType: number; readonly timestampSec: number; readonly text: string; readonly redDot: boolean }
  | { readonly is: 'ack'; readonly clientSeq: number; readonly messageID: string; readonly messageSeq: number; readonly reasonCode: number }

const tell = (report: Report): void => void process.send?.(report)

// The SDK finds the browser's WebSocket and writes its thoughts to the console.
Object.assign(globalThis, { WebSocket })
Object.assign(console, { log: () => undefined })

const sdk = WKSDK.shared()
sdk.connectManager.addConnectStatusListener((status, reasonCode) => tell({ is: 'status', status, reasonCode: reasonCode ?? 0 }))
sdk.chatManager.addMessageStatusListener(({ clientSeq, messageID, messageSeq, reasonCode }) =>
  tell({ is: 'ack', clientSeq, messageID: messageID.toFixed(), messageSeq, reasonCode }),
)
sdk.chatManager.addMessageListener(({ messageID, messageSeq, clientMsgNo, fromUID, channel, timestamp, content, header }) => {
  // The SDK also tells of every message it is about to send; that one has no id yet.
  if ((messageID as string | undefined) === undefined) return
  const text = content instanceof MessageText ? (content.text ?? '') : ''
  const { channelID, channelType } = channel
  tell({ is: 'message', messageID: String(messageID), messageSeq, clientMsgNo, fromUID, channelID, channelType, timestampSec: timestamp, text, redDot: header.reddot })
})

process.on('message', (command: Command) => {
  switch (command.do) {
    case 'connect':
      Object.assign(sdk.config, { addr: command.addr, uid: command.uid, token: command.token })
      sdk.connect()
      break
    case 'send':
      for (const text of command.texts) void sdk.chatManager.send(new MessageText(text), new Channel(command.channelID, command.channelType))
      break
    case 'disconnect':
      sdk.disconnect()
      break
  }
})
// The test is gone: so is its client.
process.on('disconnect', () => process.exit())
tell({ is: 'ready' })
