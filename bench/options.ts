/** What the benchmarks that run a server have in common on their command lines. */
import { parseArgs } from 'node:util'
import type { ServerSpec, Transport } from './wire.ts'

export interface Options {
  readonly runs: number
  readonly measureMs: number
  readonly warmUpMs: number
  /** which others to measure beside; all by default */
  readonly isPeer: (name: string) => boolean
  /** the engines to measure: what was asked for, or the benchmark's own choice */
  readonly engines: readonly EngineChoice[]
  /** other options, as they were given */
  readonly more: Readonly<Record<string, string | undefined>>
}

export type EngineChoice = Pick<ServerSpec, 'transport' | 'encryption' | 'storage'>

/**
 * `--runs 5 --seconds 3 --warm-up 1 --transport tcp,ws --encryption off,on --storage memory,level --peers relay,aedes`; of the
 * three that choose engines, the ones left out are tcp, off and memory as soon as one is given. `--peers none` for no others.
 */
export function readOptions(defaults: readonly EngineChoice[], more: Readonly<Record<string, string>> = {}): Options {
  const text = (value?: string): { type: 'string'; default?: string } => (value === undefined ? { type: 'string' } : { type: 'string', default: value })
  const { values } = parseArgs({
    options: {
      runs: text('5'), seconds: text('3'), 'warm-up': text('1'), transport: text(), encryption: text(), storage: text(), peers: text('all'),
      ...Object.fromEntries(Object.entries(more).map(([name, value]) => [name, text(value)])),
    },
  }) as { values: Record<string, string | undefined> }
  const { transport, encryption, storage } = values
  const isChosen = transport !== undefined || encryption !== undefined || storage !== undefined
  const peers = values['peers']!.split(',')
  return {
    runs: positive('runs', values['runs']!),
    measureMs: positive('seconds', values['seconds']!) * 1000,
    warmUpMs: positive('warm-up', values['warm-up']!) * 1000,
    isPeer: (name) => peers.includes('all') || peers.includes(name),
    engines: isChosen ? combine(oneOf('transport', transport ?? 'tcp', ['tcp', 'ws']), oneOf('encryption', encryption ?? 'off', ['off', 'on']), oneOf('storage', storage ?? 'memory', ['memory', 'level'])) : defaults,
    more: values,
  }
}

function combine(transports: readonly Transport[], encryptions: readonly ('off' | 'on')[], storages: readonly ('memory' | 'level')[]): EngineChoice[] {
  return transports.flatMap((transport) => encryptions.flatMap((encryption) => storages.map((storage) => ({ transport, encryption, storage }))))
}

function oneOf<T extends string>(name: string, given: string, allowed: readonly T[]): T[] {
  return given.split(',').map((value) => {
    if (!(allowed as readonly string[]).includes(value)) throw new TypeError(`--${name} takes ${allowed.join(' or ')}, got ${value}`)
    return value as T
  })
}

export function positive(name: string, given: string): number {
  const value = Number(given)
  if (!(value > 0)) throw new TypeError(`--${name} takes a positive number, got ${given}`)
  return value
}

/** A server's name in a table. */
export function nameOf({ kind, transport, encryption, storage }: ServerSpec): string {
  if (kind === 'engine') return `engine, ${transport}${encryption === 'on' ? ', encrypted' : ''}${storage === 'level' ? ', level' : ''}`
  return kind === 'relay' ? `relay, ${transport}` : kind
}
