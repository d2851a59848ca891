import { badOption, integerBetween } from '../errors.ts'
import { isUint64Decimal } from '../model/int64.ts'
import { ChannelType, isValidChannelID, isValidUID, personChannelUIDs, sourceKey, type ChannelKey } from '../model/channel.ts'

/** What a host hands to the management calls is checked here, once; inside the engine it is trusted. */

/** @throws TypeError unless `key` names a channel; a person's own lists hang on (uid, person). `at` goes before the names */
export function checkKey(key: ChannelKey, at = ''): ChannelKey {
  const { channelID, channelType } = (key ?? {}) as Partial<ChannelKey>
  if (typeof channelType !== 'number' || !Number.isInteger(channelType) || channelType < 1 || channelType > 255) {
    badOption(`${at}channelType`, 'an integer from 1 to 255', channelType)
  }
  const isName = typeof channelID === 'string' && isValidChannelID(channelID)
  if (!isName || (channelType === ChannelType.Person && !isPersonID(sourceKey({ channelID, channelType }).channelID))) {
    badOption(`${at}channelID`, 'a channel id: text without # & and control characters, for a person a uid', channelID)
  }
  return { channelID, channelType }
}

/** As `checkKey`, for what is in a channel: between two people it has an id of both. @throws TypeError */
export function checkLogKey(key: ChannelKey, at = ''): ChannelKey {
  const checked = checkKey(key, at)
  const { channelID, channelType } = sourceKey(checked)
  if (channelType === ChannelType.Person && personChannelUIDs(channelID) === undefined) {
    badOption(`${at}channelID`, 'the id of two people: personChannelID(a, b)', channelID)
  }
  return checked
}

function isPersonID(channelID: string): boolean {
  return isValidUID(channelID) || personChannelUIDs(channelID) !== undefined
}

/** @throws TypeError unless `uid` could connect */
export function checkUID(name: string, uid: unknown): string {
  if (typeof uid !== 'string' || !isValidUID(uid)) badOption(name, 'a uid: text without @ # & and control characters', uid)
  return uid
}

/** @throws TypeError unless all are uids, and not more than `maxCount` of them */
export function checkUIDs(name: string, uids: readonly string[], maxCount: number): readonly string[] {
  if (!Array.isArray(uids)) badOption(name, 'an array of uids', uids)
  if (uids.length > maxCount) badOption(name, `at most ${maxCount} uids`, uids)
  return uids.map((uid, index) => checkUID(`${name}[${index}]`, uid))
}

/** @throws TypeError unless all are ids */
export function checkMessageIDs(messageIDs: readonly string[]): readonly string[] {
  if (!Array.isArray(messageIDs)) badOption('messageIDs', 'an array of decimal strings', messageIDs)
  return messageIDs.map((messageID: unknown, index) => {
    if (typeof messageID === 'string' && isUint64Decimal(messageID)) return messageID
    return badOption(`messageIDs[${index}]`, 'a decimal string', messageID)
  })
}

/** @throws TypeError unless it is a byte, as CONNECT has it */
export function checkDeviceFlag(deviceFlag: unknown): number {
  return integerBetween('deviceFlag', deviceFlag, 0, 255)
}

/** Of what is too long the length is told, and of the content nothing. @throws TypeError */
export function checkPayload(name: string, payload: unknown, maxBytes: number): Uint8Array {
  if (!(payload instanceof Uint8Array)) badOption(name, `a Uint8Array of at most ${maxBytes} bytes`, payload)
  if (payload.length > maxBytes) throw new TypeError(`imengine: ${name} must be of at most ${maxBytes} bytes, got ${payload.length}`)
  return payload
}

const MAX_TEXT_BYTES = 32_767

/** @throws TypeError unless the wire has room for it */
export function checkText(name: string, text: unknown): string {
  if (typeof text !== 'string' || !text.isWellFormed() || Buffer.byteLength(text) > MAX_TEXT_BYTES) {
    badOption(name, `well-formed text of at most ${MAX_TEXT_BYTES} bytes`, text)
  }
  return text
}
