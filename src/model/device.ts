/** Kind of device, chosen by the client in CONNECT (wkproto 5, CONNECT.deviceFlag). */
export const DeviceFlag = { App: 0, Web: 1, Pc: 2, System: 99 } as const
export type DeviceFlag = (typeof DeviceFlag)[keyof typeof DeviceFlag]

/** Decided by the token verifier, never on the wire: a new master login ends older ones of the same kind of device. */
export const DeviceLevel = { Slave: 0, Master: 1 } as const
export type DeviceLevel = (typeof DeviceLevel)[keyof typeof DeviceLevel]
