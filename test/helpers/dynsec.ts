import { ControlChannel, type ControlLink } from '../../lib/dynsec/control-channel.ts'
import { DynsecApi, type DynsecSettings } from '../../lib/dynsec/dynsec.ts'
import type { Dynsec } from '../../types/dynsec.ts'

/** `fastify.mqtt.dynsec` on any link, without an application, and what ends it. */
export function createDynsec (
  link: ControlLink, settings: DynsecSettings
): { dynsec: Dynsec, close (): void } {
  const channel = new ControlChannel(link, settings)
  return { dynsec: new DynsecApi(channel, settings), close: () => channel.close() }
}
