import { refuse, ReasonCode, type OnSendContext, type Outcome, type Plugin } from 'imengine'

/** What a payload begins with that the host refuses, or changes. */
export const FORBIDDEN = 'never: '
const CENSORED = 'change: '

/** A handler of EventOnSend as a host writes one. */
export function judge(ctx: OnSendContext): Outcome {
  const text = Buffer.from(ctx.payload).toString()
  if (text.startsWith(FORBIDDEN)) return refuse(ReasonCode.NotAllowSend)
  if (text.startsWith(CENSORED)) ctx.payload = Buffer.from(asStored(text))
}

export const HOUSE_RULES: Plugin = {
  name: 'rules',
  setup: (host) => void host.use('EventOnSend', judge, { name: 'judge' }),
}

/** What the host makes of a payload. */
export function asStored(text: string): string {
  return text.startsWith(CENSORED) ? text.slice(CENSORED.length).toUpperCase() : text
}

/** What is sent so that it is refused, or changed. */
export function payloadOf(text: string, as: string | undefined): string {
  return as === 'refused' ? FORBIDDEN + text : as === 'rewritten' ? CENSORED + text : text
}
