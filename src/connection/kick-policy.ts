import type { KickVerdict, Login } from '../contracts/kick-policy.ts'
import { DeviceLevel } from '../model/device.ts'

/**
 * The protocol's rules: only connections of the same kind of device are concerned. A new login from the same device takes
 * the old one's place; a new master login ends those of other devices; slaves share.
 * Source: wkproto, devices and kicking.
 */
export function defaultKickPolicy(login: Login, existing: Login): KickVerdict {
  if (existing.deviceFlag !== login.deviceFlag) return 'keep'
  if (existing.deviceID === login.deviceID) return 'replace'
  return login.deviceLevel === DeviceLevel.Master ? 'kick' : 'keep'
}
