export type * from '../../types/testing.ts'
export { createMemoryBroker } from './memory-broker.ts'
