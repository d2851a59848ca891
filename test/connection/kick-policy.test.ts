import { expect, test } from 'vitest'
import { defaultKickPolicy, DeviceFlag, DeviceLevel } from 'imengine'
import type { KickVerdict, Login } from '../../src/contracts/kick-policy.ts'

const { Slave, Master } = DeviceLevel

/** wkproto, devices and kicking: the whole table. What the older connection may do plays no part. */
const rows: [newLevel: DeviceLevel, sameDevice: boolean, expected: KickVerdict][] = [
  [Master, false, 'kick'],
  [Master, true, 'replace'],
  [Slave, false, 'keep'],
  [Slave, true, 'replace'],
]

const login = (overrides: Partial<Login>): Login => ({ uid: 'ann', deviceID: 'a', deviceFlag: DeviceFlag.App, deviceLevel: Slave, ...overrides })

for (const oldLevel of [Slave, Master]) {
  test.each(rows)(`a login of level %i, same device %s, does "%s" to one of level ${oldLevel}`, (deviceLevel, sameDevice, expected) => {
    const existing = login({ deviceLevel: oldLevel })
    expect(defaultKickPolicy(login({ deviceLevel, deviceID: sameDevice ? 'a' : 'b' }), existing)).toBe(expected)
  })
}

test.each([
  [DeviceFlag.App, DeviceFlag.Web],
  [DeviceFlag.Web, DeviceFlag.Pc],
  [DeviceFlag.Pc, DeviceFlag.App],
])('kinds of device %i and %i never touch each other, whatever the level and the device id', (deviceFlag, otherFlag) => {
  for (const deviceLevel of [Slave, Master]) {
    for (const deviceID of ['a', 'b']) {
      expect(defaultKickPolicy(login({ deviceFlag, deviceLevel, deviceID }), login({ deviceFlag: otherFlag, deviceLevel: Master }))).toBe('keep')
    }
  }
})
