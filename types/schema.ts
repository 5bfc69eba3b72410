import type { FastifyTypeProvider } from 'fastify'

/**
 * Any schema of @sinclair/typebox, told by its shape: TypeBox declares its own symbols once for CommonJS and
 * once for ES modules, so that a type that named `TSchema` would refuse the schemas of the other half.
 */
export interface Schema {
  static: unknown
  params: unknown[]
}

/** What a TypeBox schema describes. */
export type Static<S extends Schema> = (S & { params: [] })['static']

/**
 * What a schema describes: TypeBox schemas need no type provider, schemas of other libraries are inferred by
 * the type provider of the Fastify instance (`fastify.withTypeProvider<…>()`).
 */
export type Infer<S, Provider extends FastifyTypeProvider> =
  S extends Schema ? Static<S> : (Provider & { schema: S })['validator']
