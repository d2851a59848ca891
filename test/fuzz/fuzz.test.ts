import { readFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { decode, FrameDecoder } from 'imengine/protocol'
import { caseOf, CONNECTION, DECODER, readCorpus, type Target } from './corpus.ts'
import { ReferenceStream, show, Type } from './reference/wire.ts'

/** `FUZZ_SEED` plays other cases than the usual ones. */
const SEED = Number(process.env['FUZZ_SEED'] ?? 1)

/** What differs, each with the seed that makes the case or the line that has it. */
async function differences<C extends { readonly chunks: readonly unknown[] }>(target: Target<C>, cases: Iterable<readonly [string, C]>): Promise<string[]> {
  const found: string[] = []
  for (const [name, given] of cases) {
    for (const problem of (await target.play(given)).problems) found.push(`${name}: ${problem}`)
    if (found.length > 5) break
  }
  return found
}

function* random<C extends { readonly chunks: readonly unknown[] }>(target: Target<C>, count: number): Iterable<[string, C]> {
  for (let seed = SEED; seed < SEED + count; seed++) yield [`seed ${seed}`, caseOf(target, seed)]
}

function corpusOf<C extends { readonly chunks: readonly unknown[] }>(target: Target<C>): [string, C][] {
  return readCorpus(target).map((given, index) => [`corpus/${target.name}.jsonl, line ${index + 1}`, given])
}

interface MalformedVector {
  readonly name: string
  readonly version: number
  readonly hex?: string
  readonly expect: { readonly verdict: string; readonly code?: string }
}

describe('the reference', () => {
  const { vectors } = JSON.parse(readFileSync(new URL('../vectors/malformed.json', import.meta.url), 'utf8')) as { vectors: MalformedVector[] }

  it('gives the verdicts of the vectors, which come from other implementations', () => {
    for (const { name, version, hex, expect: expected } of vectors) {
      if (hex === undefined) continue
      const stream = new ReferenceStream(version)
      stream.add(Buffer.from(hex, 'hex'))
      const frame = stream.next()
      const verdict = frame !== undefined ? 'ok' : stream.malformed !== undefined ? 'malformed' : 'need-more'
      expect({ verdict, ...(stream.malformed !== undefined && { code: stream.malformed }) }, name).toMatchObject(
        expected.code === undefined ? { verdict: expected.verdict } : { verdict: expected.verdict, code: expected.code },
      )
    }
  })
})

describe('the decoder says what the reference says', () => {
  it('about every case of the corpus', async () => {
    expect(await differences(DECODER, corpusOf(DECODER))).toEqual([])
  })

  it('about random streams', async () => {
    expect(await differences(DECODER, random(DECODER, 8_000))).toEqual([])
  })

  it('also when it is asked for one frame and not fed with a stream', () => {
    for (const [name, { version, maxFrameBytes, chunks }] of random(DECODER, 3_000)) {
      const bytes = Buffer.from(chunks.join(''), 'hex')
      const stream = new ReferenceStream(version, maxFrameBytes)
      stream.add(bytes)
      const frame = stream.next()
      const answer = decode(bytes, version, { maxFrameBytes })
      const found = answer.status === 'frame' ? show(answer.frame) : answer.status === 'malformed' ? answer.code : answer.status
      expect(found, name).toBe(frame === undefined ? (stream.malformed ?? 'need-more') : show(frame))
    }
  })
})

describe('the decoder, given a long frame byte by byte', () => {
  it('copies each byte three times at most, and holds what has come and no more', () => {
    const bodyBytes = 262_144
    const decoder = new FrameDecoder()
    let copiedBytes = 0
    const set = Reflect.get(Object.getPrototypeOf(Uint8Array.prototype) as object, 'set') as (source: ArrayLike<number>, at?: number) => void
    const spy = vi.spyOn(Object.getPrototypeOf(Uint8Array.prototype) as { set: typeof set }, 'set').mockImplementation(function (this: Uint8Array, source, at) {
      copiedBytes += source.length
      set.call(this, source, at)
    })
    const frames: number[] = []
    let mostHeldBytes = 0
    try {
      decoder.feed(Uint8Array.of((Type.EVENT << 4) | 0, 0x80, 0x80, 0x10), (frame) => void frames.push(frame.type))
      const byte = Uint8Array.of(0)
      for (let count = 1; count <= bodyBytes; count++) {
        decoder.feed(byte, (frame) => void frames.push(frame.type))
        if (decoder.pendingBytes > 4 + count) throw new Error(`${decoder.pendingBytes} bytes are held of ${count}`)
        mostHeldBytes = Math.max(mostHeldBytes, decoder.pendingBytes)
      }
    } finally {
      spy.mockRestore()
    }
    expect(frames).toEqual([Type.EVENT])
    expect(mostHeldBytes).toBe(bodyBytes + 3)
    expect(copiedBytes).toBeLessThan(3 * bodyBytes)
    expect(decoder.pendingBytes).toBe(0)
  })
})

describe('a connection answers what the reference answers', () => {
  it('in every case of the corpus', async () => {
    expect(await differences(CONNECTION, corpusOf(CONNECTION))).toEqual([])
  })

  it('in random cases', async () => {
    expect(await differences(CONNECTION, random(CONNECTION, 1_000))).toEqual([])
  })
})
