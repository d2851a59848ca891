import { ChannelType, communityKey, personChannelUIDs, sourceKey, type ChannelKey } from '../model/channel.ts'
import { isPromise, type MaybePromise } from '../model/maybe-promise.ts'
import type { TakePage } from './subscribers.ts'

export interface ReceiversOptions {
  /** members of one channel, in pages */
  readonly members: (key: ChannelKey, take: TakePage) => MaybePromise<void>
}

/**
 * Whom a channel's messages are for, by the type of channel. Most are for their members. A person channel and an agent's are
 * for the two whose uids make up the id; a visitors channel is for the visitor and the members of the customer service channel
 * of the same id; a topic of a community, `<community>@<topic>`, for its own members, or the community's when it has none. A
 * command channel is for whom the channel is for that it belongs to.
 */
export class Receivers {
  readonly #members: ReceiversOptions['members']

  constructor({ members }: ReceiversOptions) {
    this.#members = members
  }

  /** Hand all uids of the channel to `take`, in pages, each once. A promise only when somebody answers with one. */
  each(key: ChannelKey, take: TakePage): MaybePromise<void> {
    const source = sourceKey(key)
    const { channelID, channelType } = source
    switch (channelType) {
      case ChannelType.Person:
      case ChannelType.Agent: {
        const pair = personChannelUIDs(channelID)
        if (pair !== undefined) return whenTaken(take(pair[0] === pair[1] ? [pair[0]] : pair), () => undefined)
        return channelType === ChannelType.Agent ? this.#members(source, take) : undefined
      }
      case ChannelType.Visitors:
        return this.#visitorAndStaff(channelID, take)
      case ChannelType.CommunityTopic:
        return this.#topic(source, take)
      default:
        return this.#members(source, take)
    }
  }

  #visitorAndStaff(visitor: string, take: TakePage): MaybePromise<void> {
    return whenTaken(take([visitor]), (answer) => {
      if (answer === false) return
      return this.#members({ channelID: visitor, channelType: ChannelType.CustomerService }, (uids) => {
        const others = uids.includes(visitor) ? uids.filter((uid) => uid !== visitor) : uids
        return others.length > 0 ? take(others) : undefined
      })
    })
  }

  #topic(topic: ChannelKey, take: TakePage): MaybePromise<void> {
    const community = communityKey(topic)
    if (community === undefined) return this.#members(topic, take)
    let hasOwn = false
    const parents = (): MaybePromise<void> => {
      if (!hasOwn) return this.#members(community, take)
    }
    const own = this.#members(topic, (uids) => {
      hasOwn = true
      return take(uids)
    })
    return isPromise(own) ? own.then(parents) : parents()
  }
}

function whenTaken(taken: ReturnType<TakePage>, next: (answer: false | undefined) => MaybePromise<void>): MaybePromise<void> {
  return isPromise(taken) ? taken.then(next) : next(taken)
}
