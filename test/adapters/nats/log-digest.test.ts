import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChecksumRing, RING_COUNT } from '../../../src/adapters/nats/checksum-ring.ts'
import { DigestPeer } from '../../../src/adapters/nats/digest-peer.ts'
import { decodeDigest, encodeDigest, Kind, type DigestFrame, type Testimony, type Witness } from '../../../src/adapters/nats/digest-wire.ts'
import { LogDigest, type DigestVerdict } from '../../../src/adapters/nats/log-digest.ts'

/** What the checksum of the entry at a position is; on servers that have not come to agree it is not the same for all. */
type Log = (seq: number) => number

const truth: Log = (seq) => Math.imul(seq, 2_654_435_761) >>> 0
const butAt = (...wrong: number[]): Log => (seq) => (wrong.includes(seq) ? (truth(seq) ^ 1) >>> 0 : truth(seq))

let lifeCount = 0

/** A node in one of its lives. */
class Node {
  readonly witness: Witness
  readonly verdicts: DigestVerdict[] = []
  readonly digest: LogDigest
  seq: number
  readonly #log: Log

  constructor(nodeID: number, log: Log = truth, position = 0, isFresh = false) {
    this.witness = { nodeID, boot: (++lifeCount).toString(16).padStart(16, '0'), isFresh }
    this.#log = log
    this.seq = position
    this.digest = new LogDigest(nodeID, (verdict) => void this.verdicts.push(verdict))
  }

  /** Apply what comes next, up to `seq`. */
  to(seq: number): this {
    while (this.seq < seq) this.digest.applied(++this.seq, this.#log(this.seq))
    return this
  }

  hear(from: Node, said: readonly Testimony[]): void {
    for (const testimony of said) this.digest.heard(from.witness, testimony)
  }

  get kinds(): string[] {
    return this.verdicts.map(({ kind }) => kind)
  }
}

/** One beat of everyone, and everyone hears it; by way of the bytes. */
function beat(nodes: readonly Node[], isLost: (from: Node, to: Node) => boolean = () => false): void {
  for (const from of nodes) {
    const said = from.digest.beat().map((testimony) => decodeDigest(encodeDigest({ witness: from.witness, partition: 0, testimony })).testimony)
    for (const to of nodes) if (to !== from && !isLost(from, to)) to.hear(from, said)
  }
}

function beats(count: number, nodes: readonly Node[]): void {
  for (let n = 0; n < count; n++) beat(nodes)
}

describe('nodes that compare what they have read', () => {
  it('and have read the same never say a word, whatever is lost, wherever they begin and how far they are apart', () => {
    const step = fc.record({ node: fc.nat(2), by: fc.nat(600), isRestarted: fc.boolean(), loses: fc.boolean() })
    fc.assert(
      fc.property(fc.array(fc.nat(300), { minLength: 3, maxLength: 3 }), fc.array(step, { maxLength: 40 }), (positions, steps) => {
        const nodes = positions.map((position, i) => new Node(i + 1, truth, position))
        const all = [...nodes]
        for (const { node, by, isRestarted, loses } of steps) {
          if (isRestarted) {
            nodes[node] = new Node(node + 1, truth, nodes[node]!.seq)
            all.push(nodes[node])
          }
          nodes[node]!.to(nodes[node]!.seq + by)
          beat(nodes, (from) => loses && from.witness.nodeID === node + 1)
        }
        beats(30, nodes)
        expect(all.flatMap(({ verdicts }) => verdicts)).toEqual([])
        expect(nodes.some(({ digest }) => digest.isInDoubt)).toBe(false)
      }),
      { numRuns: 60 },
    )
  })

  it('and differ somewhere in what both hold are told apart, and both stop', () => {
    fc.assert(
      fc.property(fc.nat(500), fc.nat(500), fc.integer({ min: 1, max: 3_000 }), fc.array(fc.tuple(fc.boolean(), fc.nat(1_000)), { maxLength: 20 }), (a, b, length, steps) => {
        const last = Math.max(a, b) + length
        fc.pre(last - Math.max(a, b) < RING_COUNT)
        const wrong = Math.max(a, b) + 1 + ((a * 31 + b * 17) % length)
        const [one, two] = [new Node(1, truth, a), new Node(2, butAt(wrong), b)]
        for (const [isFirst, by] of steps) {
          const node = isFirst ? one : two
          node.to(Math.min(last, node.seq + by))
          beat([one, two])
        }
        one.to(last)
        two.to(last)
        beats(30, [one, two])
        expect(one.verdicts).toMatchObject([{ kind: 'stop', from: wrong, to: wrong, nodeIDs: [2], agreeingNodeIDs: [] }])
        expect(two.verdicts).toMatchObject([{ kind: 'stop', from: wrong, to: wrong, nodeIDs: [1], agreeingNodeIDs: [] }])
      }),
      { numRuns: 100 },
    )
  })

  it('of three or five stop where they are fewer, and the others go on', () => {
    fc.assert(
      fc.property(fc.constantFrom(3, 5), fc.integer({ min: 2, max: 400 }), fc.array(fc.tuple(fc.nat(4), fc.nat(200)), { maxLength: 20 }), (count, wrong, steps) => {
        const minority = (count - 1) / 2
        // All are there, which is known of those that have read something.
        const nodes = Array.from({ length: count }, (_, i) => new Node(i + 1, i < minority ? butAt(wrong) : truth).to(1))
        beat(nodes)
        for (const [i, by] of steps) {
          const node = nodes[i % count]!
          node.to(Math.min(500, node.seq + by))
          beat(nodes)
          // One that has stopped applies nothing more.
          if (nodes.some(({ verdicts }) => verdicts.length > 0)) break
        }
        for (const node of nodes) node.to(500)
        beats(30, nodes)
        for (const [i, { verdicts }] of nodes.entries()) {
          expect(verdicts.length).toBeGreaterThan(0)
          expect(new Set(verdicts.map(({ kind }) => kind))).toEqual(new Set([i < minority ? 'stop' : 'goOn']))
        }
      }),
      { numRuns: 60 },
    )
  })

  it('find a difference also when one was far behind when the other told, and the other has stopped telling since', () => {
    const [ahead, behind] = [new Node(1, butAt(90)).to(100), new Node(2)]
    beats(10, [ahead, behind])
    behind.to(95)
    expect(behind.digest.isInDoubt).toBe(false)
    behind.to(100)
    expect(behind.digest.isInDoubt).toBe(true)
    for (let n = 0; n < 6; n++) behind.digest.beat() // which nobody answers
    expect(behind.verdicts).toEqual([{ kind: 'stop', from: 90, to: 90, nodeIDs: [1], agreeingNodeIDs: [] }])
  })

  it('compare only what both hold: a difference before one began, or further back than is kept, is not seen', () => {
    const [whole, later] = [new Node(1, butAt(50)).to(100), new Node(2, truth, 60).to(100)]
    beats(10, [whole, later])
    const [long, other] = [new Node(3, butAt(50)).to(50 + RING_COUNT), new Node(4).to(50 + RING_COUNT)]
    beats(10, [long, other])
    expect([whole, later, long, other].flatMap(({ verdicts }) => verdicts)).toEqual([])
    later.to(200)
    whole.to(200)
    beats(10, [whole, later])
    expect(whole.verdicts).toEqual([])
  })

  it('find what one has read before it was there to be heard: it asks once nothing comes any more', () => {
    const one = new Node(1, butAt(70)).to(100)
    for (let n = 0; n < 20; n++) one.digest.beat() // to nobody
    const two = new Node(2, truth, 60).to(100)
    beats(10, [one, two])
    expect(one.kinds).toEqual(['stop'])
    expect(two.verdicts).toMatchObject([{ from: 70, to: 70 }])
  })

  it('count a node that has not come so far once it has, and do not stop before', () => {
    const [one, bad, slow] = [new Node(1).to(100), new Node(2, butAt(90)).to(100), new Node(3).to(50)]
    for (let n = 0; n < 12; n++) {
      slow.to(50 + n)
      beat([one, bad, slow])
    }
    expect([one, bad, slow].flatMap(({ verdicts }) => verdicts)).toEqual([])
    slow.to(100)
    beats(6, [one, bad, slow])
    expect([one.kinds, bad.kinds, slow.kinds]).toEqual([['goOn'], ['stop'], ['goOn']])
  })

  it('wait no longer than for twenty beats for one that never comes so far', () => {
    const [one, bad, slow] = [new Node(1).to(100), new Node(2, butAt(90)).to(100), new Node(3).to(50)]
    beats(25, [one, bad, slow])
    expect([one.kinds, bad.kinds, slow.kinds]).toEqual([['stop'], ['stop'], []])
  })

  it('stop all when no two have read the same', () => {
    const nodes = [new Node(1).to(10), new Node(2, butAt(5)).to(10), new Node(3, (seq) => (truth(seq) ^ 2) >>> 0).to(10)]
    beats(10, nodes)
    expect(nodes.map(({ kinds }) => kinds)).toEqual([['stop'], ['stop'], ['stop']])
  })

  it('say nothing more, and hear nothing, once they have stopped', () => {
    const [one, two] = [new Node(1).to(10), new Node(2, butAt(5)).to(10)]
    beats(10, [one, two])
    one.to(20)
    expect(one.digest.beat()).toEqual([])
    one.hear(two, [{ kind: Kind.Range, from: 20, to: 20, digest: 1 }])
    expect([one.kinds, one.digest.isInDoubt]).toEqual([['stop'], false])
  })

  it('that are many are told again when the one that is wrong goes on, and when it starts again as it was', () => {
    const [one, two, bad] = [new Node(1).to(10), new Node(2).to(10), new Node(3, butAt(5)).to(10)]
    beats(10, [one, two, bad])
    expect([one.kinds, bad.kinds]).toEqual([['goOn'], ['stop']])
    const deaf = { ...bad.witness }
    one.digest.heard(deaf, { kind: Kind.Range, from: 10, to: 10, digest: 1 })
    expect(one.kinds).toEqual(['goOn', 'goOn'])
    const again = new Node(3, truth, 10).to(11)
    one.to(11)
    beats(4, [one, two])
    one.hear(again, again.digest.beat())
    expect(one.kinds).toEqual(['goOn', 'goOn']) // it may still be the other life
    beats(1, [one, two])
    one.hear(again, again.digest.beat())
    expect(one.verdicts.at(-1)).toMatchObject({ kind: 'returned', nodeIDs: [3] })
  })

  it('hold nothing against a node that has begun with another storage, and judge it anew', () => {
    const [one, two, bad] = [new Node(1).to(10), new Node(2).to(10), new Node(3, butAt(5)).to(10)]
    beats(10, [one, two, bad])
    const restored = new Node(3, butAt(15), 10, true).to(11)
    one.to(11)
    two.to(11)
    beats(10, [one, two, restored])
    expect(one.kinds).toEqual(['goOn'])
    for (const each of [one, two, restored]) each.to(15)
    beats(10, [one, two, restored])
    expect(one.verdicts).toMatchObject([{ from: 5 }, { kind: 'goOn', from: 15, nodeIDs: [3], agreeingNodeIDs: [2] }])
    expect(restored.kinds).toEqual(['stop'])
  })

  it('pass over what comes late of a life that has ended, whether it was heard before or not, and go on hearing the present one', () => {
    const [one, heard, unheard] = [new Node(1).to(10), new Node(2, butAt(11)).to(10), new Node(2, butAt(5)).to(10)]
    one.hear(heard, heard.digest.beat())
    const late = [heard.to(11).digest.beat(), unheard.digest.beat()]
    for (let n = 0; n < 5; n++) one.digest.beat()
    const restored = new Node(2, butAt(20), 10, true).to(11)
    one.to(11)
    one.hear(restored, restored.digest.beat())
    one.hear(heard, late[0]!)
    one.hear(unheard, late[1]!)
    expect(one.digest.isInDoubt).toBe(false)
    one.to(20)
    one.hear(restored, restored.to(20).digest.beat())
    expect(one.digest.isInDoubt).toBe(true)
  })

  it('hear the present life of a node again when they have taken one that had ended for it', () => {
    const [one, old, present] = [new Node(1).to(10), new Node(2).to(10), new Node(2, butAt(20), 10).to(11)]
    one.to(11)
    one.hear(present, present.digest.beat())
    for (let n = 0; n < 5; n++) one.digest.beat()
    one.hear(old, old.digest.beat())
    for (let n = 0; n < 5; n++) one.digest.beat()
    one.to(20)
    one.hear(present, present.to(20).digest.beat())
    expect(one.digest.isInDoubt).toBe(true)
  })

  it('pass over what another process says under their own number', () => {
    const [one, other] = [new Node(1).to(10), new Node(1, butAt(5)).to(10)]
    one.hear(other, other.digest.beat())
    expect(one.digest.isInDoubt).toBe(false)
  })

  it('keep no more than the latest of what is told of positions they have not come to', () => {
    const node = new Node(1)
    const peer = new Node(2).witness
    for (let seq = 1; seq <= 100; seq++) node.digest.heard(peer, { kind: Kind.Range, from: seq, to: seq, digest: 1 })
    node.to(68)
    expect(node.digest.isInDoubt).toBe(false)
    node.to(69)
    expect(node.digest.isInDoubt).toBe(true)
  })

  it('forget, of more than 64, those that have been silent for longest', () => {
    const node = new Node(1).to(1)
    const [digest] = node.digest.beat()
    for (let nodeID = 2; nodeID <= 66; nodeID++) node.hear(new Node(nodeID), [digest!])
    node.hear(new Node(70, butAt(1)), [{ kind: Kind.Entries, from: 1, to: 1, checksums: Uint32Array.of(5), isAsking: false }])
    for (let n = 0; n < 6; n++) node.digest.beat()
    expect(node.verdicts).toMatchObject([{ kind: 'goOn', nodeIDs: [70], agreeingNodeIDs: Array.from({ length: 63 }, (_, i) => i + 4) }])
  })
})

describe('what has been equal', () => {
  it('is joined where it touches, and says nothing of what lies between', () => {
    const peer = new DigestPeer('a', 0)
    peer.isEqual(1, 10)
    peer.isEqual(21, 30)
    expect(peer.hasEqual(5, 25)).toBe(false)
    peer.isEqual(11, 20)
    expect([peer.hasEqual(1, 30), peer.hasEqual(1, 31)]).toEqual([true, false])
  })
})

describe('the ring of checksums', () => {
  it('has the digest of a range whatever was before it and wherever it wraps, and another one when any of it is another', () => {
    fc.assert(
      fc.property(fc.nat(20_000), fc.integer({ min: 1, max: RING_COUNT }), fc.nat(), (position, length, at) => {
        const [one, two] = [new ChecksumRing(), new ChecksumRing()]
        const last = position + length + 10
        for (let seq = position + 1; seq <= last; seq++) one.add(seq, truth(seq))
        const from = Math.max(one.first, last - length + 1)
        const wrong = from + (at % (last - from + 1))
        for (let seq = from; seq <= last; seq++) two.add(seq, truth(seq))
        expect(two.first).toBe(from)
        expect(two.digest(from, last)).toBe(one.digest(from, last))
        const three = new ChecksumRing()
        for (let seq = from; seq <= last; seq++) three.add(seq, butAt(wrong)(seq))
        expect(three.digest(from, last)).not.toBe(one.digest(from, last))
      }),
      { numRuns: 60 },
    )
  })

  it('holds the last 4,096, and nothing from before a place where it did not go on', () => {
    const ring = new ChecksumRing()
    expect(ring.first).toBeGreaterThan(ring.last)
    for (let seq = 1; seq <= 5_000; seq++) ring.add(seq, seq)
    expect([ring.first, ring.last, ring.at(905), ring.at(5_000)]).toEqual([905, 5_000, 905, 5_000])
    ring.add(7_000, 1)
    expect([ring.first, ring.last]).toEqual([7_000, 7_000])
  })
})

describe('the bytes', () => {
  const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
  const witness = fc.record({
    nodeID: fc.nat(0xffff),
    boot: fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('hex')),
    isFresh: fc.boolean(),
  })
  const from = fc.integer({ min: 1, max: 2 ** 48 - 1 })
  const testimony: fc.Arbitrary<Testimony> = fc.oneof(
    fc.tuple(from, fc.nat(RING_COUNT - 1), u32).map(([start, more, digest]) => ({ kind: Kind.Range, from: start, to: start + more, digest })),
    fc.tuple(from, fc.uint32Array({ minLength: 1, maxLength: 256 }), fc.boolean()).map(([start, checksums, isAsking]) => ({
      kind: Kind.Entries, from: start, to: start + checksums.length - 1, checksums, isAsking,
    })),
  )
  const frame: fc.Arbitrary<DigestFrame> = fc.record({ witness, partition: fc.nat(0xffff), testimony })

  it('are read as they were written', () => {
    fc.assert(fc.property(frame, (each) => void expect(decodeDigest(encodeDigest(each))).toEqual(each)))
  })

  it('that nobody has written are refused by a RangeError, or are another frame, and never anything else', () => {
    const broken = fc.oneof(
      fc.uint8Array({ maxLength: 80 }),
      fc.tuple(frame, fc.nat(26), fc.nat(255)).map(([each, at, value]) => encodeDigest(each).fill(value, at, at + 1)),
      fc.tuple(frame, fc.nat(40)).map(([each, length]) => encodeDigest(each).subarray(0, length)),
      frame.map((each) => Buffer.concat([encodeDigest(each), Buffer.alloc(4)])),
    )
    fc.assert(
      fc.property(broken, (bytes) => {
        try {
          expect(Buffer.compare(encodeDigest(decodeDigest(bytes)), bytes)).toBe(0)
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError)
        }
      }),
      { numRuns: 500 },
    )
  })

  const sample = encodeDigest({ witness: { nodeID: 7, boot: '00000000000000ff', isFresh: false }, partition: 0, testimony: { kind: Kind.Range, from: 1, to: 1, digest: 42 } })

  function withByte(offset: number, value: number, bytes: Uint8Array = sample): Buffer {
    const changed = Buffer.from(bytes)
    changed[offset] = value
    return changed
  }

  it('of one entry are taken', () => {
    expect(decodeDigest(withByte(1, Kind.Entries)).testimony).toEqual({ kind: Kind.Entries, from: 1, to: 1, checksums: Uint32Array.of(42), isAsking: false })
  })

  it.each<[what: string, bytes: Uint8Array]>([
    ['nothing', Buffer.alloc(0)],
    ['another version', withByte(0, 2)],
    ['another kind', withByte(1, 3)],
    ['a flag of a later version', withByte(2, 4)],
    ['a range that asks', withByte(2, 2)],
    ['position 0', withByte(20, 0)],
    ['a range of none', withByte(22, 0)],
    ['a range that is longer than what is held', withByte(21, 16)],
    ['more entries than there are bytes for', withByte(22, 2, withByte(1, Kind.Entries))],
    ['a head alone', withByte(0, 1).subarray(0, 23)],
    ['more behind the end', Buffer.concat([withByte(0, 1), Buffer.alloc(1)])],
  ])('%s is refused', (_, bytes) => {
    expect(() => decodeDigest(bytes)).toThrow(RangeError)
  })

  it('have a layout that does not change within the version', () => {
    const range: DigestFrame = { witness: { nodeID: 7, boot: '0000000000000001', isFresh: true }, partition: 2, testimony: { kind: Kind.Range, from: 1, to: 16, digest: 42 } }
    expect(encodeDigest(range).toString('hex')).toBe('010101' + '0007' + '0000000000000001' + '0002' + '000000000001' + '0010' + '0000002a')
    const checksums = Uint32Array.of(1, 2)
    const entries: DigestFrame = { ...range, testimony: { kind: Kind.Entries, from: 1, to: 2, checksums, isAsking: true } }
    expect(encodeDigest(entries).toString('hex')).toBe('010203' + '0007' + '0000000000000001' + '0002' + '000000000001' + '0002' + '0000000100000002')
  })
})
