import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

export interface Asset {
  readonly contentType: string
  readonly body: Buffer
  readonly gzip: Buffer
  readonly etag: string
}

const pageFile = (path: string): string => fileURLToPath(new URL(`page/${path}`, import.meta.url))

/**
 * The page, bundled in memory: its own code, the npm client SDK as published, and one style sheet. Nothing is written to
 * disk and nothing is loaded from anywhere else.
 */
export async function bundlePage(): Promise<ReadonlyMap<string, Asset>> {
  const { outputFiles } = await build({
    entryPoints: { app: pageFile('src/main.ts'), style: pageFile('styles/main.css') },
    outdir: '/',
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: ['es2022'],
    tsconfig: pageFile('tsconfig.json'),
    // Some of the SDK's dependencies look for Node's name of the global object.
    define: { global: 'globalThis' },
    logLevel: 'error',
  })
  const assets = new Map<string, Asset>()
  for (const { path, contents } of outputFiles) {
    const name = path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1)
    const contentType = name.endsWith('.css') ? 'text/css; charset=utf-8' : 'text/javascript; charset=utf-8'
    assets.set(`/${name}`, toAsset(contentType, Buffer.from(contents)))
  }
  assets.set('/', toAsset('text/html; charset=utf-8', await readFile(pageFile('index.html'))))
  assets.set('/icon.svg', toAsset('image/svg+xml', await readFile(pageFile('icon.svg'))))
  return assets
}

function toAsset(contentType: string, body: Buffer): Asset {
  const hash = createHash('sha256').update(body).digest('base64url').slice(0, 22)
  return { contentType, body, gzip: gzipSync(body), etag: `"${hash}"` }
}
