import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { DeviceFlag, personChannelID } from 'imengine'
import { stage, TEAM, type Stage } from '../support.ts'

type Engine = Stage['engine']
const payload = Buffer.from('hi')
const hi = { ...TEAM, fromUID: 'ann', payload }
const news = { channelID: 'news', channelType: 6 }

/** One row for each route of the reference server, with the method that answers it. */
const rows: readonly (readonly [route: string, method: string, call: (engine: Engine) => unknown])[] = [
  ['/user/token', 'users.setToken', ({ users }) => users.setToken('ann', { deviceFlag: DeviceFlag.App, token: 't' })],
  ['/user/device_quit', 'users.quitDevice', ({ users }) => users.quitDevice('ann')],
  ['/user/onlinestatus', 'presence.query', ({ presence }) => presence.query(['ann'])],
  ['/user/systemuids_add', 'users.system.add', ({ users }) => users.system.add(['bot'])],
  ['/user/systemuids_remove', 'users.system.remove', ({ users }) => users.system.remove(['bot'])],
  ['/user/systemuids', 'users.system.list', ({ users }) => users.system.list()],
  ['ban of a user', 'users.ban', ({ users }) => users.ban('eve')],
  ['end of a ban', 'users.unban', ({ users }) => users.unban('eve')],
  ['send ban of a user', 'users.setSendBan', ({ users }) => users.setSendBan('eve', true)],
  ['/conn/remove', 'connections.close', ({ connections }) => connections.close({ connectionID: '7' })],
  ['/conn/kick', 'connections.kick', ({ connections }) => connections.kick({ uid: 'eve' }, 'away with you')],
  ['/connz', 'connections.list', ({ connections }) => connections.list({}, { limit: 10 })],
  ['/channel', 'channels.create', ({ channels }) => channels.create(news, { subscribers: ['ann'], reset: true })],
  ['/channel/info', 'channels.update', ({ channels }) => channels.update(TEAM, { allowStranger: true })],
  ['/channel/delete', 'channels.disband', ({ channels }) => channels.disband(TEAM)],
  ['/channel/delete with messages', 'channels.delete', ({ channels }) => channels.delete(TEAM, { messages: true })],
  ['/channel/subscriber_add', 'channels.subscribers.add', ({ channels }) => channels.subscribers.add(TEAM, ['dan'])],
  ['/channel/subscriber_remove', 'channels.subscribers.remove', ({ channels }) => channels.subscribers.remove(TEAM, ['dan'])],
  ['/channel/subscriber_remove_all', 'channels.subscribers.clear', ({ channels }) => channels.subscribers.clear(TEAM)],
  ['/cluster/channels/:id/:type/subscribers', 'channels.subscribers.list', ({ channels }) => channels.subscribers.list(TEAM)],
  ['/tmpchannel/subscriber_set', 'channels.setTemporary', ({ channels }) => channels.setTemporary('tmp', ['ann'])],
  ...(['denylist', 'allowlist'] as const).flatMap((name) => {
    const route = name === 'denylist' ? '/channel/blacklist' : '/channel/whitelist'
    return [
      [`${route}_add`, `channels.${name}.add`, ({ channels }: Engine) => channels[name].add(TEAM, ['eve'])],
      [`${route}_set`, `channels.${name}.set`, ({ channels }: Engine) => channels[name].set(TEAM, ['eve'])],
      [`${route}_remove`, `channels.${name}.remove`, ({ channels }: Engine) => channels[name].remove(TEAM, ['eve'])],
      [`${route}_remove_all`, `channels.${name}.clear`, ({ channels }: Engine) => channels[name].clear(TEAM)],
      [route, `channels.${name}.list`, ({ channels }: Engine) => channels[name].list(TEAM)],
    ] as const
  }),
  ['/message/send', 'messages.send', ({ messages }) => messages.send(hi)],
  ['/message/send with subscribers', 'messages.send', ({ messages }) => messages.send({ ...hi, subscribers: ['bob'], noPersist: true })],
  ['/message/sendbatch', 'messages.sendToUsers', ({ messages }) => messages.sendToUsers(['bob'], { fromUID: 'ann', payload })],
  ['several messages', 'messages.sendMany', ({ messages }) => messages.sendMany([hi])],
  ['/message/sync', 'messages.commands.sync', ({ messages }) => messages.commands.sync('ann')],
  ['/message/syncack', 'messages.commands.ack', ({ messages }) => messages.commands.ack('ann', ['1'])],
  ['/messages', 'messages.get', ({ messages }) => messages.get({ ...TEAM, seqs: [1, 2] })],
  ['/message', 'messages.get', ({ messages }) => messages.get(['1'])],
  ['/message/byclientmsgno', 'messages.get', ({ messages }) => messages.get({ ...TEAM, fromUID: 'ann', clientMsgNos: ['n'] })],
  ['/channel/messagesync', 'messages.sync', ({ messages }) => messages.sync(TEAM)],
  ['/channel/max_message_seq', 'channels.lastSeq', ({ channels }) => channels.lastSeq(TEAM)],
  ['/channel/last_message', 'channels.lastMessage', ({ channels }) => channels.lastMessage(TEAM)],
  ['a message deleted for one user', 'messages.deleteFor', ({ messages }) => messages.deleteFor('ann', ['1'])],
  ['a recall', 'messages.recall', async ({ messages }) => messages.recall((await messages.send(hi)).messageID)],
  ['an edit', 'messages.edit', async ({ messages }) => messages.edit((await messages.send(hi)).messageID, payload)],
  ['a truncation', 'messages.truncate', ({ messages }) => messages.truncate(TEAM, 1)],
  ['/conversations/clearUnread', 'conversations.markRead', ({ conversations }) => conversations.markRead('ann', TEAM)],
  ['/conversations/setUnread', 'conversations.setUnread', ({ conversations }) => conversations.setUnread('ann', TEAM, 1)],
  ['/conversations/delete', 'conversations.delete', ({ conversations }) => conversations.delete('ann', TEAM)],
  ['/conversation/sync', 'conversations.list', ({ conversations }) => conversations.list('ann', { limit: 10 })],
  ['/conversation/syncByChannels', 'conversations.get', ({ conversations }) => conversations.get('ann', { channelID: personChannelID('ann', 'bob'), channelType: 1 })],
  ['/conversation/channels', 'channels.of', ({ channels }) => channels.of('ann')],
]

describe('M16 Management methods: every row (users, conn, channel, message, conversation) is callable', () => {
  test.each(rows)('%s is %s', async (_route, _method, call) => {
    const { engine, errors } = await stage()
    await call(engine)
    expect(errors).toEqual([])
  })

  test('and stands in docs/management.md', () => {
    const page = readFileSync(new URL('../../docs/management.md', import.meta.url), 'utf8')
    expect(rows.flatMap(([, method]) => (page.includes(`\`${method}`) ? [] : [method]))).toEqual([])
    expect(rows.flatMap(([route]) => (!route.startsWith('/') || page.includes(route.split(' ')[0]!) ? [] : [route]))).toEqual([])
  })
})
