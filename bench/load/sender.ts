/** Where a sender starts to count: 8 digits from the first message to the last, so that frames keep their length. */
export const FIRST_NUMBER = 10_000_000

/** What one sender has under way. Messages are numbered one by one; a slot of the ring is free again once acknowledged. */
export class Sender {
  readonly index: number
  /** of the next message, and the same in ASCII */
  nextNumber = FIRST_NUMBER
  readonly digits = Buffer.from(String(FIRST_NUMBER))
  /** by slot: when the message in it was sent, or should have been */
  readonly sentAtMs: Float64Array
  readonly slotMask: number
  underWayCount = 0
  refusedCount = 0
  readonly #isUnderWay: Uint8Array

  /** @param ringCount  a power of two, a good deal larger than what is ever under way: deliveries look their time up here, too */
  constructor(index: number, ringCount: number) {
    this.index = index
    this.slotMask = ringCount - 1
    this.sentAtMs = new Float64Array(ringCount)
    this.#isUnderWay = new Uint8Array(ringCount)
  }

  get sentCount(): number {
    return this.nextNumber - FIRST_NUMBER
  }

  /** Take the number that `digits` show, once the frame is made. */
  sent(atMs: number): void {
    const slot = this.nextNumber & this.slotMask
    if (this.#isUnderWay[slot] === 1) throw new Error(`${this.slotMask + 1} messages of one sender are under way: the server does not keep up`)
    this.#isUnderWay[slot] = 1
    this.sentAtMs[slot] = atMs
    this.underWayCount++
    this.nextNumber++
    const digits = this.digits
    let index = 7
    while (digits[index] === 0x39) digits[index--] = 0x30
    digits[index]!++
  }

  /** @returns when the message was sent */
  acknowledged(number: number): number {
    const slot = number & this.slotMask
    if (number >= this.nextNumber || number < this.nextNumber - this.slotMask - 1 || this.#isUnderWay[slot] !== 1) {
      throw new Error(`message ${number - FIRST_NUMBER} of sender ${this.index} was acknowledged twice, or never sent`)
    }
    this.#isUnderWay[slot] = 0
    this.underWayCount--
    return this.sentAtMs[slot]!
  }

  sentAt(number: number): number {
    return this.sentAtMs[number & this.slotMask]!
  }
}

/** The number that 8 ASCII digits show. */
export function readDigits(bytes: Uint8Array, at: number): number {
  let number = 0
  for (let index = at; index < at + 8; index++) number = number * 10 + bytes[index]! - 0x30
  return number
}

export function writeDigits(bytes: Uint8Array, at: number, digits: Uint8Array, mask: number): void {
  for (let index = 0; index < 8; index++) bytes[at + index] = digits[index]! ^ mask
}

/** What one connection has been delivered: nothing twice, nothing out of order, and where it is strict, nothing left out. */
export class DeliveryCheck {
  /** by channel, 0 at the start */
  readonly #lastSeqs: Uint32Array
  /** by sender */
  readonly #lastNumbers: Uint32Array
  readonly #name: string
  readonly #isStrict: boolean
  deliveredCount = 0

  /** @param isStrict  false for a connection that sends into the channel itself: its own messages are missing among the others */
  constructor(name: string, counts: { readonly channelCount: number; readonly senderCount: number }, isStrict: boolean) {
    this.#name = name
    this.#lastSeqs = new Uint32Array(counts.channelCount)
    this.#lastNumbers = new Uint32Array(counts.senderCount)
    this.#isStrict = isStrict
  }

  /** A server that numbers: seqs of a channel run 1, 2, 3 …, and messages of one sender come in the order of sending. */
  deliveredAt(channel: number, seq: number, sender: number, number: number): void {
    const last = this.#lastSeqs[channel]
    if (last === undefined) throw new Error(`${this.#name} was delivered a message of a channel that nobody sends to`)
    if (this.#isStrict ? seq !== last + 1 : seq <= last) throw new Error(`${this.#name} was delivered seq ${seq} after ${last} of channel ${channel}`)
    this.#lastSeqs[channel] = seq
    this.#inOrder(sender, number)
  }

  /** A server that does not number: the sender's own numbers have to follow one another. */
  delivered(sender: number, number: number): void {
    const last = this.#lastNumbers[sender]!
    if (number !== (last === 0 ? FIRST_NUMBER : last + 1)) {
      throw new Error(`${this.#name} was delivered message ${number - FIRST_NUMBER} of sender ${sender} after ${last === 0 ? 'none' : last - FIRST_NUMBER}`)
    }
    this.#inOrder(sender, number)
  }

  #inOrder(sender: number, number: number): void {
    const last = this.#lastNumbers[sender]
    if (last === undefined || number <= last) throw new Error(`${this.#name} was delivered message ${number - FIRST_NUMBER} of sender ${sender} twice, or too late`)
    this.#lastNumbers[sender] = number
    this.deliveredCount++
  }
}
