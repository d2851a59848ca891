import { describe, expect, test } from 'vitest'
import manifest from '../package.json' with { type: 'json' }

/** The values of every entry. A change here changes the API, and is told to the user in CHANGELOG.md. */
const entries: Readonly<Record<string, { readonly load: () => Promise<object>; readonly names: readonly string[] }>> = {
  '.': {
    load: () => import('imengine'),
    names: [
      'allOf', 'allowAnyToken', 'channelInfo', 'ChannelType', 'close', 'defaultKickPolicy', 'DeviceFlag', 'DeviceLevel', 'ERRORS', 'FrameFlag', 'IMEngine',
      'IMError', 'LIMITS', 'MemberRole', 'memoryChannelDirectory', 'memoryCursorStore', 'memoryMessageStore',
      'memoryOutbox', 'memoryPeerHub', 'memoryPresence', 'memoryReplicatorHub', 'memoryStorage', 'memoryTokenStore', 'personChannelID',
      'personChannelUIDs', 'ReasonCode', 'reasonName', 'refuse', 'sendPolicy', 'Setting', 'staticTokenVerifier',
    ],
  },
  './level': {
    load: () => import('imengine/level'),
    names: [
      'levelStorage',
    ],
  },
  './redis': {
    load: () => import('imengine/redis'),
    names: [
      'redisCluster',
    ],
  },
  './http': {
    load: () => import('imengine/http'),
    names: [
      'httpTokenVerifier', 'httpWebhook', 'verifyWebhookSignature',
    ],
  },
  './ws': {
    load: () => import('imengine/ws'),
    names: [
      'attachWebSocketServer', 'serveWebSocket',
    ],
  },
  './net': {
    load: () => import('imengine/net'),
    names: [
      'attachNetServer', 'serveNetSocket',
    ],
  },
  './nats': {
    load: () => import('imengine/nats'),
    names: [
      'natsCluster',
    ],
  },
  './postgres': {
    load: () => import('imengine/postgres'),
    names: [
      'postgresStorage',
    ],
  },
  './metrics': {
    load: () => import('imengine/metrics'),
    names: [
      'registerMetrics',
    ],
  },
  './protocol': {
    load: () => import('imengine/protocol'),
    names: [
      'acceptKeyAgreement', 'ChannelType', 'ClientKeyAgreement', 'decode', 'DEFAULT_MAX_FRAME_BYTES', 'detectFraming',
      'DeviceFlag', 'encode', 'FrameDecoder', 'FrameFlag', 'FrameType', 'IMError', 'LATEST_VERSION', 'MAX_STRING_BYTES',
      'negotiateVersion', 'openRecv', 'openSend', 'ReasonCode', 'reasonName', 'RecvEncoder', 'sealedByteCount', 'SealModule',
      'sealRecv', 'sealSend', 'SessionCipher', 'Setting', 'shapeConnack',
    ],
  },
  './testing': {
    load: () => import('imengine/testing'),
    names: [
      'channelDirectoryContract', 'clockContract', 'connectTestClient', 'cursorStoreContract', 'FakeClock', 'loggerContract',
      'messageStoreContract', 'outboxContract', 'peerPushContract', 'presenceContract', 'randomContract', 'recordingLogger',
      'replicatorContract', 'sampleMessage', 'seededRandom', 'socketContract', 'socketPair', 'TestClient',
      'tokenStoreContract', 'tokenVerifierContract', 'webhookContract',
    ],
  },
}

describe.each(Object.entries(entries))('entry %s', (_entry, { load, names }) => {
  test('has exactly these values', async () => {
    expect(Object.keys(await load()).toSorted()).toEqual([...names].toSorted())
  })

  test('has nothing undefined and no default', async () => {
    const module = await load()
    for (const [name, value] of Object.entries(module)) expect(value, name).toBeDefined()
    expect(module).not.toHaveProperty('default')
  })
})

test('package.json offers these entries, each to import and to require, and nothing else', () => {
  expect(Object.keys(manifest.exports).toSorted()).toEqual([...Object.keys(entries), './package.json'].toSorted())
  for (const entry of Object.keys(entries)) {
    const name = entry === '.' ? 'index' : entry.slice(2)
    expect(manifest.exports[entry as '.']).toEqual({
      import: { types: `./dist/${name}.d.ts`, default: `./dist/${name}.js` },
      require: { types: `./dist/${name}.d.cts`, default: `./dist/${name}.cjs` },
    })
  }
})
