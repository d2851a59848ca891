import { existsSync } from 'node:fs'
import { chromium, type Browser, type BrowserContextOptions, type Locator, type Page } from 'playwright-core'

export const CHROMIUM = [process.env.CHROMIUM_PATH, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/usr/bin/google-chrome-stable'].find(
  (path) => path !== undefined && existsSync(path),
)
if (CHROMIUM === undefined) process.stderr.write('\n!!! NO CHROMIUM FOUND: the chat page is NOT tested. Set CHROMIUM_PATH to run its tests.\n\n')

/** A browser in which every person has a context of their own, with a storage of its own. */
export class ChatBrowser {
  readonly #browser: Browser
  /** what pages threw, and what the security policy kept them from */
  readonly complaints: string[] = []

  static async launch(): Promise<ChatBrowser> {
    return new ChatBrowser(
      await chromium.launch({
        executablePath: CHROMIUM ?? '',
        args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
      }),
    )
  }

  private constructor(browser: Browser) {
    this.#browser = browser
  }

  /** The page, signed in under a name. */
  async open(name: string, { port, ...options }: BrowserContextOptions & { port: number }): Promise<Page> {
    const context = await this.#browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options })
    context.setDefaultTimeout(20_000)
    const page = await context.newPage()
    page.on('pageerror', (error) => {
      // The SDK itself throws away, in this way, a live message that is not JSON.
      if (!/is not valid JSON/.test(error.message)) this.complaints.push(`${name}: ${error.stack ?? error.message}`)
    })
    page.on('console', (message) => {
      if (/content security policy|trusted/i.test(message.text())) this.complaints.push(`${name}: ${message.text()}`)
    })
    await page.goto(`http://127.0.0.1:${port}/`)
    await signIn(page, name)
    return page
  }

  async close(): Promise<void> {
    await this.#browser.close()
  }
}

export async function signIn(page: Page, name: string): Promise<void> {
  await page.getByLabel('Your name').fill(name)
  await page.getByRole('button', { name: 'Join the chat' }).click()
  await page.getByText('Connected', { exact: true }).waitFor({ state: 'attached' })
}

export const composer = (page: Page): Locator => page.getByRole('textbox', { name: /^Message / })
export const messages = (page: Page): Locator => page.getByRole('log').getByRole('article')
export const bubble = (page: Page, text: string): Locator => messages(page).filter({ hasText: text })
export const row = (page: Page, name: string): Locator =>
  page.getByRole('navigation').getByRole('link').filter({ has: page.locator('.row-name', { hasText: name }) })
export const state = (page: Page, text: string): Locator => bubble(page, text).getByRole('img')

/** What the open conversation shows, from the top. */
export const texts = (page: Page): Promise<string[]> => messages(page).locator('.text').allTextContents()

export async function say(page: Page, text: string): Promise<void> {
  await composer(page).fill(text)
  await composer(page).press('Enter')
  await bubble(page, text).first().waitFor()
}

/** Waits until it is stored. @returns what the page says about it */
export async function sent(page: Page, text: string): Promise<string> {
  await bubble(page, text).and(page.locator('.is-sent')).waitFor()
  return (await state(page, text).getAttribute('aria-label')) ?? ''
}
