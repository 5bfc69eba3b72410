import type { FastifyInstance } from 'fastify'
import { HookBook } from './dispatch/hooks.ts'
import type { Engine } from './engine.ts'
import { errors } from './errors.ts'
import { MqttContext } from './mqtt.ts'
import { parsePrefix, withPrefix } from './topic/prefix.ts'
import { kindOf } from './values.ts'

/** The default connection has no namespace. */
type Namespace = string | undefined

/**
 * The contexts of an application as the plugin sees them. A connection belongs to the context in which it was
 * registered, and to those below it, as a decorator does.
 */
export class Scope {
  readonly mqtt: MqttContext
  readonly #server: FastifyInstance
  readonly #topicPrefix: string
  readonly #parent: Scope | undefined
  readonly #children: Scope[] = []
  readonly #engines = new Map<Namespace, Engine>()
  readonly #hooks = new Map<Namespace, HookBook>()

  private constructor (server: FastifyInstance, parent: Scope | undefined, topicPrefix: string) {
    this.#server = server
    this.#parent = parent
    this.#topicPrefix = topicPrefix
    this.mqtt = this.#contextFor(undefined)
    if (parent === undefined) return
    parent.#children.push(this)
    for (const namespace of parent.namespaces) this.#define(namespace)
  }

  /** The scope of an instance; decorates it with `fastify.mqtt` if neither it nor one above has that. */
  static of (server: FastifyInstance): Scope {
    return Scope.#existing(server) ?? Scope.#outermost(server)
  }

  static #existing (server: FastifyInstance): Scope | undefined {
    const existing = scopes.get(server)
    if (existing !== undefined) return existing
    // There before the plugin was, so that onRegister did not tell of it.
    return isBelowScope(server) ? Scope.#enter(server, undefined) : undefined
  }

  static #outermost (server: FastifyInstance): Scope {
    const scope = new Scope(server, undefined, '')
    scopes.set(server, scope)
    server.decorate('mqtt', {
      // Not a value: every instance has its own, and finds this one through its prototypes.
      getter () { return (Scope.#existing(this) ?? scope).mqtt as unknown as FastifyInstance['mqtt'] }
    })
    server.addHook('onRegister', (child, { topicPrefix }: { topicPrefix?: unknown }) => {
      if (isBelowScope(child)) Scope.#enter(child, topicPrefix)
    })
    return scope
  }

  static #enter (server: FastifyInstance, topicPrefix: unknown): Scope {
    const parent = Scope.of(prototypeOf(server))
    const scope = new Scope(server, parent, joinTopicPrefix(parent.#topicPrefix, topicPrefix))
    scopes.set(server, scope)
    return scope
  }

  /** @throws `FST_MQTT_ALREADY_REGISTERED`, `FST_MQTT_OPTIONS_INVALID` */
  attach (namespace: Namespace, engine: Engine): void {
    if (this.#find(namespace) !== undefined) {
      throw new errors.FST_MQTT_ALREADY_REGISTERED(
        namespace === undefined ? 'The default connection' : `The namespace '${namespace}'`,
        'give a further connection a namespace of its own')
    }
    if (namespace !== undefined && namespace in this.mqtt) {
      throw new errors.FST_MQTT_OPTIONS_INVALID('namespace',
        `'${namespace}' is a member of fastify.mqtt: choose another name`)
    }
    this.#engines.set(namespace, engine)
    if (namespace !== undefined) this.#define(namespace)
  }

  /** Of this scope and those above. */
  get namespaces (): string[] {
    const own = [...this.#engines.keys()].filter((namespace) => namespace !== undefined)
    return this.#parent === undefined ? own : [...this.#parent.namespaces, ...own]
  }

  #find (namespace: Namespace): Engine | undefined {
    const own = this.#engines.get(namespace)
    return own === undefined && this.#parent !== undefined ? this.#parent.#find(namespace) : own
  }

  #contextFor (namespace: Namespace): MqttContext {
    const above = this.#parent === undefined ? undefined : this.#parent.#hooks.get(namespace)
    const hooks = new HookBook(above)
    this.#hooks.set(namespace, hooks)
    return new MqttContext({
      server: this.#server,
      topicPrefix: this.#topicPrefix,
      hooks,
      engine: (member) => {
        const engine = this.#find(namespace)
        if (engine !== undefined) return engine
        throw new errors.FST_MQTT_NO_DEFAULT(member, this.namespaces.join(', '))
      }
    })
  }

  /** `fastify.mqtt.<namespace>`, here and in the contexts that are already below. */
  #define (namespace: string): void {
    if (!(namespace in this.mqtt)) {
      Object.defineProperty(this.mqtt, namespace, { value: this.#contextFor(namespace), enumerable: true })
    }
    for (const child of this.#children) child.#define(namespace)
  }
}

const scopes = new WeakMap<FastifyInstance, Scope>()

/** A context of Fastify has the one that it is in as its prototype. */
function prototypeOf (server: FastifyInstance): FastifyInstance {
  return Object.getPrototypeOf(server) as FastifyInstance
}

function isBelowScope (server: FastifyInstance): boolean {
  const above = Object.getPrototypeOf(server) as FastifyInstance | null
  return above !== null && (scopes.has(above) || isBelowScope(above))
}

function joinTopicPrefix (outer: string, given: unknown): string {
  if (given === undefined) return outer
  if (typeof given !== 'string') {
    throw new errors.FST_MQTT_OPTIONS_INVALID('topicPrefix', `it has to be a string, not ${kindOf(given)}`)
  }
  const parsed = parsePrefix(given)
  if ('problem' in parsed) throw new errors.FST_MQTT_OPTIONS_INVALID('topicPrefix', parsed.problem)
  if (parsed.prefix.startsWith('$')) {
    throw new errors.FST_MQTT_OPTIONS_INVALID('topicPrefix', `'${given}' begins with $: such topics have no prefix`)
  }
  return parsed.prefix === '' ? outer : withPrefix(outer, parsed.prefix)
}
