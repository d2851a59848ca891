import { badOption, IMError } from '../errors.ts'
import { MessagesAPI, type MessagesAPIOptions, type SendReceipt, type SendResult } from '../management/messages.ts'
import type { SendRequest, UserSendRequest } from '../management/send-request.ts'
import type { ChannelKey } from '../model/channel.ts'
import type { Message } from '../model/message.ts'
import type { Causes } from './causes.ts'
import type { PluginMessagesAPI, PluginSendRequest } from './plugin.ts'

export interface PluginMessagesOptions {
  readonly pluginName: string
  readonly causes: Causes
  readonly maxDepth: number
  readonly hasEnded: () => boolean
}

/** `host.messages`: all of `engine.messages`, but what is sent because of a message knows how far away a client's is. */
export class PluginMessages extends MessagesAPI implements PluginMessagesAPI {
  readonly #engine: MessagesAPIOptions
  readonly #own: MessagesAPI
  readonly #plugin: PluginMessagesOptions

  constructor(engine: MessagesAPIOptions, plugin: PluginMessagesOptions) {
    super(engine)
    this.#engine = engine
    this.#own = new MessagesAPI(engine)
    this.#plugin = plugin
  }

  override async send(request: PluginSendRequest): Promise<SendReceipt> {
    return (this.#sender(request?.replyTo, request) ?? this.#own).send(request)
  }

  override async sendMany(requests: readonly SendRequest[]): Promise<readonly SendResult[]> {
    return (this.#sender(undefined) ?? this.#own).sendMany(requests)
  }

  override async sendToUsers(uids: readonly string[], request: UserSendRequest): ReturnType<MessagesAPI['sendToUsers']> {
    return (this.#sender(undefined) ?? this.#own).sendToUsers(uids, request)
  }

  /** What sends because of a message; undefined when no message has led here. @throws IM_NOT_RUNNING; IM_SEND_DEPTH */
  #sender(replyTo: Message | undefined, to?: ChannelKey): MessagesAPI | undefined {
    const { causes, maxDepth, pluginName, hasEnded } = this.#plugin
    if (hasEnded()) throw new IMError('IM_NOT_RUNNING', { detail: `the plugin ${pluginName} has ended` })
    if (replyTo !== undefined && typeof replyTo?.messageID !== 'string') badOption('replyTo', 'a message', replyTo)
    const depth = causes.depthNow(replyTo)
    if (depth === 0) return undefined
    if (depth > maxDepth) {
      const channel = to === undefined ? {} : { channelID: to.channelID, channelType: to.channelType }
      throw new IMError('IM_SEND_DEPTH', { detail: `depth ${depth} of ${maxDepth}`, context: { step: pluginName, ...channel } })
    }
    // One for this call: where the message object exists for the first time, its depth has to be known.
    const { distribute } = this.#engine
    return new MessagesAPI({
      ...this.#engine,
      distribute: (channel, key, message, waiter, receivers) => {
        causes.sent(message, depth)
        return distribute(channel, key, message, waiter, receivers)
      },
    })
  }
}
