import { createServer, type AddressInfo, type Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { generate, parser, type Packet, type Parser } from 'mqtt-packet'
import { Splitter } from '../lib/wire/frames.ts'
import { scattered } from './report.ts'
import { blockSize, payloadText, requestTopic, topicName, type Traffic } from './traffic.ts'

// A program of its own: a broker that knows just enough to be subscribed to, and then writes a block of
// PUBLISHes, encoded once, as fast as the socket takes it. Then it ends the connection. It speaks the
// version that the client speaks, and ends with the process that started it.

const blocks = new Map<string, Block>()

const server = createServer({ noDelay: true }, (socket) => {
  let version: 4 | 5 = 4
  const send = (packet: Packet) => socket.write(generate(packet, { protocolVersion: version }))
  const packets = parser()
  packets.on('packet', (packet) => {
    if (packet.cmd === 'connect') version = packet.protocolVersion === 5 ? 5 : 4
    if (packet.cmd === 'publish' && packet.topic === requestTopic) {
      const traffic = JSON.parse(packet.payload.toString()) as Traffic
      const block = blockFor(traffic, version)
      // A consumer that gives up is reported by itself.
      if (traffic.qos === 0) void pipeline(repeated(block.bytes, traffic.messages), socket).catch(() => {})
      else feedAcknowledged(block, traffic, version, socket, packets)
      return
    }
    const answer = answerTo(packet)
    if (answer !== undefined) send(answer)
  })
  const onData = (bytes: Buffer) => { packets.parse(bytes) }
  socket.on('data', onData)
  socket.on('error', () => {})
})

process.on('disconnect', () => process.exit())
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))

function answerTo (packet: Packet): Packet | undefined {
  if (packet.cmd === 'connect') return { cmd: 'connack', sessionPresent: false, returnCode: 0, reasonCode: 0 }
  if (packet.cmd === 'pingreq') return { cmd: 'pingresp' }
  if (packet.cmd !== 'subscribe') return undefined
  return { cmd: 'suback', messageId: packet.messageId ?? 0, granted: packet.subscriptions.map(() => 0) }
}

function * repeated (block: Buffer, messages: number): Generator<Buffer> {
  for (let sent = 0; sent < messages; sent += blockSize) yield block
}

/** QoS 1: as many as the window allows, and one more for each acknowledgement. */
function feedAcknowledged (
  block: Block, traffic: Traffic, version: 4 | 5, socket: Socket, packets: Parser
): void {
  let sent = 0
  let acknowledged = 0
  const send = () => {
    while (sent < traffic.messages && sent - acknowledged < traffic.window) {
      const from = sent % blockSize
      const count = Math.min(blockSize - from, traffic.messages - sent, traffic.window - sent + acknowledged)
      socket.write(block.bytes.subarray(block.offsets[from], block.offsets[from + count]))
      sent += count
    }
    if (acknowledged === traffic.messages) socket.end()
  }
  const splitter = new Splitter({
    onPublish () {}, onControl () {}, onAck () { acknowledged++ }
  }, { version, maxBytes: 1_000_000 })
  // From here on nothing but acknowledgements comes.
  packets.removeAllListeners()
  socket.removeAllListeners('data').on('data', (bytes: Buffer) => {
    for (const ack of acksOf(bytes)) splitter.push(ack)
    send()
  })
  send()
}

/** What a broker gets, as what a client gets: both acknowledge in the same way. PINGREQ is left out. */
function acksOf (bytes: Buffer): Buffer[] {
  return bytes.length === 2 && bytes[0] === 0xc0 ? [] : [bytes]
}

interface Block {
  readonly bytes: Buffer
  readonly offsets: readonly number[]
}

function blockFor (traffic: Traffic, protocolVersion: number): Block {
  const key = `${protocolVersion}/${traffic.topics}/${traffic.qos}`
  let block = blocks.get(key)
  if (block === undefined) blocks.set(key, block = makeBlock(traffic, protocolVersion))
  return block
}

// Every topic equally often, in an order that no branch predictor learns.
function makeBlock (traffic: Traffic, protocolVersion: number): Block {
  const order = Array.from({ length: blockSize }, (_, index) => index % traffic.topics)
  const next = scattered(blockSize)
  for (const [index, topic] of order.entries()) {
    const other = next()
    order[index] = order[other] ?? 0
    order[other] = topic
  }
  const frames = order.map((topic, sequence) => generate({
    cmd: 'publish',
    topic: topicName(topic, traffic),
    payload: payloadText(sequence),
    qos: traffic.qos,
    messageId: sequence + 1,
    dup: false,
    retain: false
  }, { protocolVersion }))
  const offsets = [0]
  for (const frame of frames) offsets.push((offsets.at(-1) ?? 0) + frame.length)
  return { bytes: Buffer.concat(frames), offsets }
}
