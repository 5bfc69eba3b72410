import type { DynsecError, DynsecSettled } from '../../types/dynsec.ts'
import { describeError, errors } from '../errors.ts'
import { ofCommand, withSubject } from './broker-errors.ts'
import { isIgnored, type CallOptions } from './call-options.ts'
import type { WireCommand } from './checks.ts'
import type { Executor } from './executor.ts'

/** What is created in several steps. */
export interface Steps {
  readonly create: WireCommand
  /** Its roles and groups, each by a command of its own. */
  readonly assign: readonly WireCommand[]
  /** Takes the creation back. */
  readonly undo: WireCommand
}

/**
 * Creates something with all that belongs to it, or not at all. The assignments are no part of the message
 * that creates: the plugin would execute them also when it refuses to create, and so give roles to an
 * account which is there already, of which the caller knows nothing.
 *
 * @throws the refusal of the broker, after which nothing is left; `FST_MQTT_DYNSEC_INCOMPLETE` if something
 *   may be
 */
export async function createWhole (
  executor: Executor, { create, assign, undo }: Steps, options: CallOptions
): Promise<void> {
  if (!await isNew(executor, create, options) || assign.length === 0) return
  let refusal: DynsecError | undefined
  try {
    refusal = refusalAmong(await executor.runAll(assign, options))
    if (refusal === undefined) return
    await executor.runOne(undo, options)
  } catch (error) {
    throw ofCommand(new errors.FST_MQTT_DYNSEC_INCOMPLETE(
      withSubject(create), describeError(error), { cause: error }), create)
  }
  throw refusal
}

async function isNew (executor: Executor, create: WireCommand, options: CallOptions): Promise<boolean> {
  try {
    await executor.runOne(create, options)
    return true
  } catch (error) {
    if (isIgnored(error, options)) return false
    throw error
  }
}

/** The first refusal, if there is one. @throws what left it open whether something was executed */
function refusalAmong (settled: readonly DynsecSettled<unknown>[]): DynsecError | undefined {
  const reasons = settled.flatMap((one) => one.status === 'rejected' ? [one.reason] : [])
  const open = reasons.find(({ brokerMessage }) => brokerMessage === undefined)
  if (open !== undefined) throw open
  return reasons[0]
}
