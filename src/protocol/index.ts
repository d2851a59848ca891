/**
 * `imengine/protocol`: wkproto as bytes and as plain objects, and the payload encryption. Pure: no socket, no timer, nothing
 * kept between calls but what an object of these classes holds. For clients, bots, proxies and tests; the engine uses the same.
 */
export { ChannelType } from '../model/channel.ts'
export { DeviceFlag } from '../model/device.ts'
export { FrameFlag, FrameType, LATEST_VERSION } from '../model/frames.ts'
export type {
  ConnackPacket,
  ConnectPacket,
  DisconnectPacket,
  EventPacket,
  Frame,
  MalformedCode,
  PingPacket,
  PongPacket,
  RecvackPacket,
  RecvPacket,
  SendackPacket,
  SendPacket,
  SubackPacket,
  SubPacket,
} from '../model/frames.ts'
export { Setting, type Message } from '../model/message.ts'
export { ReasonCode, reasonName } from '../model/reason-code.ts'
export { IMError } from '../errors.ts'
export { decode, type DecodeResult } from './decode.ts'
export { detectFraming, type Framing } from './detect-framing.ts'
export { encode } from './encode.ts'
export { FrameDecoder } from './frame-decoder.ts'
export { acceptKeyAgreement, ClientKeyAgreement, type KeyAgreement, type RandomBytes } from './key-agreement.ts'
export { DEFAULT_MAX_FRAME_BYTES, MAX_STRING_BYTES } from './limits.ts'
export { negotiateVersion, shapeConnack, type ConnackFields } from './negotiate.ts'
export { RecvEncoder, type RecvView } from './recv-encoder.ts'
export { openRecv, openSend, sealRecv, sealSend } from './seal.ts'
export { SealModule, type Sealed, type SealTarget, type WebAssemblyHost } from './seal-module.ts'
export { sealedByteCount, SessionCipher, type PayloadCipher } from './session-cipher.ts'
