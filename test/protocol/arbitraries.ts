import fc from 'fast-check'
import { FrameType, type Frame } from '../../src/model/frames.ts'

/**
 * Every random test starts from one seed, so a run can be repeated; fast-check prints it with the failing case.
 * `FUZZ_SEED=7 FUZZ_FACTOR=100 npx vitest run test/protocol` looks elsewhere and longer.
 */
export function fuzz(numRuns: number): { seed: number; numRuns: number } {
  return { seed: Number(process.env.FUZZ_SEED ?? 20_260_101), numRuns: numRuns * Number(process.env.FUZZ_FACTOR ?? 1) }
}

export const version = fc.integer({ min: 1, max: 6 })

const u8 = fc.integer({ min: 0, max: 0xff })
const u32 = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.constantFrom(0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff))
const i32 = fc.oneof(fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }), fc.constantFrom(-0x8000_0000, -1, 0x7fff_ffff))
const i64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const flags = fc.integer({ min: 0, max: 15 })

/** The whole range, with the places where the arithmetic on halves changes its way. */
export const uint64 = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.tuple(fc.constantFrom(0n, 10n ** 6n, 10n ** 15n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n), fc.integer({ min: -3, max: 3 })).map(
    ([edge, step]) => BigInt.asUintN(64, edge + BigInt(step)),
  ),
)
const id = uint64.map(String)

/** Well-formed text of every width, with the marks that decoders like to swallow or to make up. */
export const text = fc.oneof(
  fc.string({ unit: fc.integer({ min: 0, max: 0x7f }).map((code) => String.fromCharCode(code)), maxLength: 60 }),
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.constantFrom('', '\ufeffbom', '\ufffd', 'a\ufffd\ud83d\ude00', 'x'.repeat(300), 'é'.repeat(200)),
)
export const payload = fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.constantFrom(new Uint8Array(0), new Uint8Array(17_000).fill(0x61)))

/** Written out once more, so that a mistake in the codec's own rule shows. */
function carriesStream(setting: number, connectionVersion: number): boolean {
  return [2, 3, 4].includes(connectionVersion) && (setting & 0x02) !== 0
}

/** A frame as `decode` gives it at that version: fields that are not on the wire hold what stands for "absent". */
export function frameAt(connectionVersion: number): fc.Arbitrary<Frame> {
  const seq = connectionVersion >= 6 ? fc.maxSafeNat() : u32
  const expireSec = connectionVersion >= 3 ? u32 : fc.constant(0)
  return fc.oneof(
    fc.record({
      type: fc.constant(FrameType.CONNECT),
      flags,
      version: u8,
      deviceFlag: u8,
      deviceID: text,
      uid: text,
      token: text,
      clientTimestampMs: i64,
      clientKey: text,
    }),
    fc.record(
      {
        type: fc.constant(FrameType.CONNACK),
        serverVersion: u8,
        timeDiffMs: i64,
        reasonCode: u8,
        serverKey: text,
        salt: text,
        nodeID: connectionVersion >= 4 ? id : fc.constant('0'),
      },
      { requiredKeys: ['type', 'timeDiffMs', 'reasonCode', 'serverKey', 'salt', 'nodeID'] },
    ),
    fc
      .record({
        type: fc.constant(FrameType.SEND),
        flags,
        setting: u8,
        clientSeq: u32,
        clientMsgNo: text,
        streamNo: text,
        channelID: text,
        channelType: u8,
        expireSec,
        msgKey: text,
        topic: text,
        payload,
      })
      .map((packet) => ({
        ...packet,
        streamNo: carriesStream(packet.setting, connectionVersion) ? packet.streamNo : '',
        topic: (packet.setting & 0x08) === 0 ? '' : packet.topic,
      })),
    fc.record({ type: fc.constant(FrameType.SENDACK), flags, messageID: id, clientSeq: u32, messageSeq: seq, reasonCode: u8 }),
    fc
      .record({
        type: fc.constant(FrameType.RECV),
        flags,
        setting: u8,
        msgKey: text,
        fromUID: text,
        channelID: text,
        channelType: u8,
        expireSec,
        clientMsgNo: text,
        streamFlag: u8,
        streamNo: text,
        streamID: id,
        messageID: id,
        messageSeq: seq,
        timestampSec: i32,
        topic: text,
        payload,
      })
      .map((packet) => ({
        ...packet,
        ...(carriesStream(packet.setting, connectionVersion) ? {} : { streamFlag: 0, streamNo: '', streamID: '0' }),
        topic: (packet.setting & 0x08) === 0 ? '' : packet.topic,
      })),
    fc.record({ type: fc.constant(FrameType.RECVACK), flags, messageID: id, messageSeq: seq }),
    fc.constant({ type: FrameType.PING }),
    fc.constant({ type: FrameType.PONG }),
    fc.record({ type: fc.constant(FrameType.DISCONNECT), flags, reasonCode: u8, reason: text }),
    fc.record({
      type: fc.constant(FrameType.SUB),
      flags,
      setting: u8,
      subNo: text,
      channelID: text,
      channelType: u8,
      action: u8,
      param: text,
    }),
    fc.record({
      type: fc.constant(FrameType.SUBACK),
      flags,
      subNo: text,
      channelID: text,
      channelType: u8,
      action: u8,
      reasonCode: u8,
    }),
    fc.record({ type: fc.constant(FrameType.EVENT), flags, id: text, eventType: text, timestampMs: i64, data: payload }),
  )
}
