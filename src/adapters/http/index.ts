/**
 * Webhooks and the check of tokens over HTTP, by node:http alone. Power loss: a delivery that was not answered is made again
 * by whoever keeps it (the engine's outbox). A slow peer is given up after a time-out. Nothing has to be closed: idle
 * connections keep no process alive.
 */
export { httpTokenVerifier, type HTTPTokenVerifierOptions } from './token-verifier.ts'
export { verifyWebhookSignature, type VerifySignatureOptions, type WebhookSecret } from './signature.ts'
export { httpWebhook, type BeforeSendOptions, type HTTPWebhookOptions } from './webhook.ts'
export type { BreakerOptions } from './breaker.ts'
export type { HTTPClock } from './client.ts'
