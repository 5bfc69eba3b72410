import { createServer, type AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { generate, parser, type Packet } from 'mqtt-packet'
import { scattered } from './report.ts'
import { blockSize, payloadText, requestTopic, topicName, type Traffic } from './traffic.ts'

// A program of its own: a broker that knows just enough to be subscribed to, and then writes a block of
// PUBLISHes, encoded once, as fast as the socket takes it. Then it ends the connection. It speaks the
// version that the client speaks, and ends with the process that started it.

const blocks = new Map<string, Buffer>()

const server = createServer({ noDelay: true }, (socket) => {
  let version = 4
  const send = (packet: Packet) => socket.write(generate(packet, { protocolVersion: version }))
  const packets = parser()
  packets.on('packet', (packet) => {
    if (packet.cmd === 'connect') version = packet.protocolVersion ?? 4
    if (packet.cmd === 'publish' && packet.topic === requestTopic) {
      const traffic = JSON.parse(packet.payload.toString()) as Traffic
      // A consumer that gives up is reported by itself.
      void pipeline(repeated(blockFor(traffic, version), traffic.messages), socket).catch(() => {})
      return
    }
    const answer = answerTo(packet)
    if (answer !== undefined) send(answer)
  })
  socket.on('data', (bytes: Buffer) => packets.parse(bytes))
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

function blockFor (traffic: Traffic, protocolVersion: number): Buffer {
  const key = `${protocolVersion}/${traffic.topics}`
  let block = blocks.get(key)
  if (block === undefined) blocks.set(key, block = makeBlock(traffic, protocolVersion))
  return block
}

// Every topic equally often, in an order that no branch predictor learns.
function makeBlock (traffic: Traffic, protocolVersion: number): Buffer {
  const order = Array.from({ length: blockSize }, (_, index) => index % traffic.topics)
  const next = scattered(blockSize)
  for (const [index, topic] of order.entries()) {
    const other = next()
    order[index] = order[other] ?? 0
    order[other] = topic
  }
  return Buffer.concat(order.map((topic, sequence) => generate({
    cmd: 'publish',
    topic: topicName(topic, traffic),
    payload: payloadText(sequence),
    qos: 0,
    dup: false,
    retain: false
  }, { protocolVersion })))
}
