import { badOption, IMError } from '../errors.ts'
import { MessagesAPI, type MessagesAPIOptions, type SendReceipt } from '../management/messages.ts'
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
  readonly #plugin: PluginMessagesOptions

  constructor(engine: MessagesAPIOptions, plugin: PluginMessagesOptions) {
    super(engine)
    this.#engine = engine
    this.#plugin = plugin
  }

  override async send(request: PluginSendRequest): Promise<SendReceipt> {
    const { causes, maxDepth, pluginName, hasEnded } = this.#plugin
    if (hasEnded()) throw new IMError('IM_NOT_RUNNING', { detail: `the plugin ${pluginName} has ended` })
    const replyTo = request?.replyTo
    if (replyTo !== undefined && typeof replyTo?.messageID !== 'string') badOption('replyTo', 'a message', replyTo)
    const depth = causes.depthNow(replyTo)
    if (depth === 0 || typeof request !== 'object' || request === null) return super.send(request)
    if (depth > maxDepth) {
      const { channelID, channelType } = request
      throw new IMError('IM_SEND_DEPTH', { detail: `depth ${depth} of ${maxDepth}`, context: { step: pluginName, channelID, channelType } })
    }
    // One for this message: where the message object exists for the first time, its depth has to be known.
    const { distribute } = this.#engine
    const sender = new MessagesAPI({
      ...this.#engine,
      distribute: (channel, key, message, waiter) => {
        causes.sent(message, depth)
        return distribute(channel, key, message, waiter)
      },
    })
    return sender.send(request)
  }
}
