import { multimqtt } from './plugin.ts'

export type * from '../types/index.ts'
export type { ErrorCode } from './errors.ts'
export { errors } from './errors.ts'
export { defineTopic } from './topic/contract.ts'
export { multimqtt }
export default multimqtt
