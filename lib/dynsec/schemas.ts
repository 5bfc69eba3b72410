import { Type, type Static, type TSchema } from '@sinclair/typebox'
import type {
  DynsecAcl, DynsecAclType, DynsecClient, DynsecDefaultAcl, DynsecDefaultAclType, DynsecDetails, DynsecGroup,
  DynsecRole
} from '../../types/dynsec-commands.ts'

// The parts of the commands' schemas: lib/dynsec/commands.ts puts them together. What a text may be beyond
// being a text is checked by the name of its field, in lib/dynsec/checks.ts.

const optional = <T extends TSchema>(schema: T) => Type.Optional(Type.Union([schema, Type.Undefined()]))

// Mosquitto 2.1 clamps to these, 2.0 stores what it is given and cuts fractions off.
const Priority = Type.Integer({ minimum: -100_000, maximum: 100_000 })

/** Fields of requests. */
export const fields = {
  username: Type.String(),
  groupname: Type.String(),
  rolename: Type.String(),
  password: Type.String(),
  optionalPassword: optional(Type.String()),
  // The empty one stands for any.
  clientid: optional(Type.String()),
  priority: optional(Priority),
  texts: { textname: optional(Type.String()), textdescription: optional(Type.String()) },
  page: {
    verbose: optional(Type.Boolean()),
    // 0 would give one.
    count: optional(Type.Integer({ minimum: 1 })),
    offset: optional(Type.Integer({ minimum: 0 }))
  },
  aclKey: {
    acltype: Type.Union([
      Type.Literal('publishClientSend'), Type.Literal('publishClientReceive'),
      Type.Literal('subscribeLiteral'), Type.Literal('subscribePattern'),
      Type.Literal('unsubscribeLiteral'), Type.Literal('unsubscribePattern')
    ]),
    topic: Type.String(),
    absolute: optional(Type.Boolean())
  },
  // Left out it would mean deny, and so would "yes".
  allow: Type.Boolean(),
  allowwildcardsubs: optional(Type.Boolean())
}

const Acl = Type.Object({
  ...fields.aclKey, allow: fields.allow, priority: fields.priority
}, { additionalProperties: false })
const DefaultAcl = Type.Object({
  acltype: Type.Union([
    Type.Literal('publishClientSend'), Type.Literal('publishClientReceive'),
    Type.Literal('subscribe'), Type.Literal('unsubscribe')
  ]),
  allow: Type.Boolean()
}, { additionalProperties: false })

export const acls = optional(Type.Unsafe<readonly DynsecAcl[]>(Type.Array(Acl)))
export const defaultAcls = Type.Unsafe<readonly DynsecDefaultAcl[]>(Type.Array(DefaultAcl))

// Answers: a newer broker may add fields, and kinds of entries.
const text = Type.Optional(Type.String())
const roleRefs = Type.Array(Type.Object({ rolename: Type.String(), priority: Type.Optional(Type.Number()) }))
const groupRefs = Type.Array(Type.Object({
  groupname: Type.String(), priority: Type.Optional(Type.Number())
}))

export const ClientAnswer = Type.Object({
  username: Type.String(),
  clientid: text,
  textname: text,
  textdescription: text,
  disabled: Type.Optional(Type.Boolean()),
  roles: roleRefs,
  groups: groupRefs,
  connections: Type.Optional(Type.Array(Type.Object({ address: text })))
})

export const GroupAnswer = Type.Object({
  groupname: Type.String(),
  textname: text,
  textdescription: text,
  clients: Type.Array(Type.Object({ username: Type.String() })),
  roles: roleRefs
})

const StoredAcl = Type.Object({
  acltype: Type.Unsafe<DynsecAclType>(Type.String()),
  topic: Type.String(),
  // Ours: the broker knows nothing of prefixes.
  absolute: fields.aclKey.absolute,
  allow: Type.Boolean(),
  priority: Type.Number()
})

export const RoleAnswer = Type.Object({
  rolename: Type.String(),
  textname: text,
  textdescription: text,
  allowwildcardsubs: Type.Optional(Type.Boolean()),
  acls: Type.Array(StoredAcl)
})

export const DetailsAnswer = Type.Object({
  clientCount: Type.Number(), groupCount: Type.Number(), roleCount: Type.Number(), changeIndex: Type.Number()
})

export const defaultAclsAnswer = Type.Array(Type.Object({
  acltype: Type.Unsafe<DynsecDefaultAclType>(Type.String()), allow: Type.Boolean()
}))

/**
 * The interfaces in types/ are written by hand, for their documentation: these lines prove that both say the
 * same.
 */
true satisfies Equal<Static<typeof Acl>, Flat<DynsecAcl>>
true satisfies Equal<Static<typeof DefaultAcl>, DynsecDefaultAcl>
true satisfies Equal<Static<typeof ClientAnswer>, DynsecClient>
true satisfies Equal<Static<typeof GroupAnswer>, DynsecGroup>
true satisfies Equal<Static<typeof RoleAnswer>, DynsecRole>
true satisfies Equal<Static<typeof DetailsAnswer>, DynsecDetails>

export type Flat<T> = { [K in keyof T]: T[K] }
export type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
