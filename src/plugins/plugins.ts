import { badOption, IMError } from '../errors.ts'
import { isPromise } from '../model/maybe-promise.ts'
import { HostOfPlugin, type PluginPorts } from './plugin-host.ts'
import type { Plugin, PluginInfo, PluginsAPI } from './plugin.ts'

interface Plugged {
  readonly plugin: Plugin<never>
  readonly host: HostOfPlugin
}

/** The plugins of one engine, in the order they were added. */
export class Plugins implements PluginsAPI {
  readonly #ports: PluginPorts
  readonly #byName = new Map<string, Plugged>()
  #hasStarted = false
  #isStarting = false
  #hasClosed = false

  constructor(ports: PluginPorts) {
    this.#ports = ports
  }

  /** @throws TypeError for something that is no plugin; IM_NOT_RUNNING in a closed engine; what `setup` throws */
  use<O>(plugin: Plugin<O>, options: O): void {
    if (typeof plugin !== 'object' || plugin === null || typeof plugin.setup !== 'function') {
      badOption('the plugin', 'an object { name, setup(host) }', plugin)
    }
    const { name } = plugin
    if (typeof name !== 'string' || name === '' || this.#byName.has(name)) badOption('plugin.name', 'a name that no other plugin has', name)
    if (plugin.configure !== undefined && typeof plugin.configure !== 'function') {
      badOption('plugin.configure', 'a function, or left out', plugin.configure)
    }
    if (this.#hasClosed) throw new IMError('IM_NOT_RUNNING', { detail: 'it has been closed' })
    const host = new HostOfPlugin(name, this.#ports, this.#hasStarted)
    this.#byName.set(name, { plugin, host })
    try {
      const result: unknown = plugin.setup(host, options)
      if (isPromise(result)) {
        result.then(undefined, () => undefined) // the TypeError says enough
        badOption(`setup of the plugin ${name}`, 'synchronous: what has to be waited for goes into host.onStart', result)
      }
    } catch (error) {
      this.#byName.delete(name)
      host.abandon()
      throw error
    }
  }

  list(): PluginInfo[] {
    return [...this.#byName.values()].filter(({ host }) => !host.isEnding).map(({ host }) => host.info)
  }

  async remove(name: string): Promise<void> {
    const { host } = this.#find(name)
    await host.end()
    if (this.#byName.get(name)?.host === host) this.#byName.delete(name)
  }

  async configure(name: string, options: unknown): Promise<void> {
    const { plugin } = this.#find(name)
    if (plugin.configure === undefined) badOption('name', 'that of a plugin that can be configured', name)
    await plugin.configure(options as never)
  }

  /** @throws what an `onStart` function has thrown, as IM_HANDLER_FAILED */
  async start(): Promise<void> {
    this.#isStarting = true
    try {
      for (const { host } of this.#byName.values()) await host.start() // those that are added meanwhile, too
      this.#hasStarted = true
    } finally {
      this.#isStarting = false
    }
  }

  /** An `onStart` function is being waited for. */
  get isStarting(): boolean {
    return this.#isStarting
  }

  /** The last one first. Never rejects. */
  async close(): Promise<void> {
    this.#hasClosed = true
    for (const { host } of [...this.#byName.values()].reverse()) await host.end()
  }

  #find(name: string): Plugged {
    const plugged = this.#byName.get(name)
    if (plugged === undefined) badOption('name', 'that of a plugin', name)
    return plugged
  }
}
