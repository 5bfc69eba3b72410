/** True for plain objects: what has named values, and no list, Date, Map or Buffer. */
export function isRecord (value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** An object without the keys whose value is undefined, which other libraries take for given. */
export function defined<T extends object> (object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as
    { [K in keyof T]: Exclude<T[K], undefined> }
}

/** The kind of a value, for messages: never the value itself, which may be a secret. */
export function kindOf (value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object') return `an object (${className(value)})`
  if (value === undefined || Number.isNaN(value)) return String(value)
  return `a ${typeof value}`
}

// Of the prototype: a received object may have a key 'constructor' with anything in it.
function className (value: object): string {
  const prototype = Object.getPrototypeOf(value) as { constructor?: { name?: unknown } } | null
  const name = prototype?.constructor?.name
  return typeof name === 'string' ? name : 'no prototype'
}

/** A value in a message, for places where no secret can stand: short, and its kind if it is no primitive. */
export function describe (value: unknown): string {
  if (typeof value === 'string') return value.length > 60 ? `'${value.slice(0, 57)}...'` : `'${value}'`
  if (typeof value === 'object' || typeof value === 'function') return kindOf(value)
  return Object.is(value, -0) ? '-0' : String(value)
}

/** What is wrong with one value, as half a sentence; undefined if nothing is. */
export type ProblemOf = (value: unknown) => string | undefined

/** The check of each key that an object may have. */
export type Checks = Readonly<Record<string, ProblemOf>>

/**
 * Whether an object has known keys only, each with a value that its check accepts; undefined is always
 * accepted.
 */
export function recordProblem (value: unknown, checks: Checks): string | undefined {
  if (!isRecord(value)) return `they have to be an object, not ${kindOf(value)}`
  // Not Object.entries: this is on the way of every publish.
  for (const key in value) {
    if (!Object.hasOwn(checks, key)) {
      return `there is no option '${key}', there are ${Object.keys(checks).join(', ')}`
    }
    const entry = value[key]
    const problem = entry === undefined ? undefined : checks[key]?.(entry)
    if (problem !== undefined) return problem
  }
  return undefined
}

/** The check of an option that is true or false. */
export function booleanNamed (name: string): ProblemOf {
  return (value) => typeof value === 'boolean' ? undefined : `${name} has to be a boolean, not ${describe(value)}`
}
