/** What the greenhouse knows of itself, in memory. */
export interface State {
  readonly zones: Map<string, Zone>
  /** Percent of water, by the number of the bed. */
  readonly moisture: Map<number, number>
  readonly alarms: Map<string, string>
  readonly lamps: Map<number, boolean>
  readonly devices: Map<string, Device>
  /** How many messages failed, by the first level of their topic. */
  readonly rejected: Map<string, number>
  visitors: number
  /** Litres. */
  tank: number
  scene: string
  summary (): object
}

export interface Zone {
  celsius: number | undefined
  humidity: number | undefined
  co2: number | undefined
  /** Degrees that are wished for. */
  target: number
}

export interface Device {
  isOnline: boolean
  firmware: number | undefined
  readonly log: string[]
}

export function createState (): State {
  return {
    zones: new Map(),
    moisture: new Map(),
    alarms: new Map(),
    lamps: new Map(),
    devices: new Map(),
    rejected: new Map(),
    visitors: 0,
    tank: 0,
    scene: 'day',
    summary () {
      const { visitors, tank, scene } = this
      const rejected = Object.fromEntries(this.rejected)
      return { visitors, tank, scene, alarms: [...this.alarms.keys()], rejected }
    }
  }
}

export function zoneOf (state: State, name: string): Zone {
  let zone = state.zones.get(name)
  if (zone === undefined) {
    zone = { celsius: undefined, humidity: undefined, co2: undefined, target: 20 }
    state.zones.set(name, zone)
  }
  return zone
}

export function deviceOf (state: State, id: string): Device {
  let device = state.devices.get(id)
  if (device === undefined) state.devices.set(id, device = { isOnline: false, firmware: undefined, log: [] })
  return device
}
