/**
 * Converters of an application's own, by declaration merging; what `<iso:day>` gives is then `Date`.
 *
 * @example
 * declare module 'fastify-multimqtt' {
 *   interface TopicConverters { iso: Date }
 * }
 */
export interface TopicConverters {}

/** What each converter that is always there gives: `<name>` is short for `<str:name>`. */
export interface BuiltInConverters {
  str: string
  int: number
  float: number
  uuid: string
  path: string
}

/** Every converter known to the types, by name. */
export type ConverterTypes = BuiltInConverters & TopicConverters

/** A value that a placeholder can have. */
export type ParamValue = ConverterTypes[keyof ConverterTypes]

/**
 * The params of a topic pattern: `ParamsOf<'room/<int:floor>/<name>'>` is `{ floor: number; name: string }`.
 * A pattern that is no literal type gives `Record<string, ParamValue>`.
 */
export type ParamsOf<P extends string> =
  IsLiteral<P> extends true ? Collect<P, unknown> : Record<string, ParamValue>

/**
 * `P` itself where it is a correct topic pattern, else a sentence that says what is wrong with it: tsc prints
 * the sentence as the type that the argument ought to have had.
 */
export type CheckPattern<P extends string> =
  string extends P
    ? P
    : P extends ''
      ? 'Invalid topic pattern: a topic pattern cannot be empty'
      : [Problem<P, never>] extends [never] ? P : `Invalid topic pattern: ${Problem<P, never>}`

// A template type such as `site/${string}` makes Record<P, 1> an index signature, which {} satisfies.
type IsLiteral<P extends string> = Record<never, never> extends Record<P, 1> ? false : true

// Jumps from placeholder to placeholder, not from level to level: 900 levels cost nothing.
type Collect<P extends string, Found> =
  P extends `${string}<${infer Inner}>${infer Rest}` ? Collect<Rest, Found & Param<Inner>> : Flat<Found>

type Param<Inner extends string> =
  Inner extends `${infer Converter}:${infer Name}`
    ? { [K in Name]: Converter extends keyof ConverterTypes ? ConverterTypes[Converter] : never }
    : { [K in Inner]: string }

type Flat<T> = unknown extends T ? Record<never, never> : { [K in keyof T]: T[K] }

type Problem<P extends string, Names extends string> =
  P extends `${infer Level}/${infer Rest}`
    ? [LevelProblem<Level, Names, false>] extends [never]
        ? Problem<Rest, Names | NameOf<Level>>
        : LevelProblem<Level, Names, false>
    : LevelProblem<P, Names, true>

type NameOf<Level extends string> =
  Level extends `<${infer Inner}>` ? Inner extends `${string}:${infer Name}` ? Name : Inner : never

type LevelProblem<Level extends string, Names extends string, Last extends boolean> =
  Level extends `<${infer Inner}>`
    ? Inner extends `${string}<${string}` | `${string}>${string}`
      ? `a placeholder must be a whole level, '${Level}' is not`
      : Inner extends `${infer Converter}:${infer Name}`
        ? PlaceholderProblem<Level, Converter, Name, Names, Last>
        : PlaceholderProblem<Level, 'str', Inner, Names, Last>
    : Level extends `${string}<${string}>${string}`
      ? `a placeholder must be a whole level, '${Level}' is not`
      : Level extends '+'
        ? never
        : Level extends '#'
          ? Last extends true ? never : "'#' must be the last level"
          : Level extends `${string}${'+' | '#'}${string}`
            ? `a wildcard must be a whole level, '${Level}' is not`
            : never

type PlaceholderProblem<
  Level extends string, Converter extends string, Name extends string,
  Names extends string, Last extends boolean
> =
  Name extends ''
    ? `the placeholder '${Level}' has no name`
    : Converter extends keyof ConverterTypes
      ? [Converter, Last] extends ['path', false]
          ? `'${Level}' must be the last level: a path takes everything that is left`
          : Name extends Names ? `the name '${Name}' is used twice` : never
      : `unknown converter '${Converter}' in '${Level}': use str, int, float, uuid, path or one of your own \
(option converters, interface TopicConverters)`
