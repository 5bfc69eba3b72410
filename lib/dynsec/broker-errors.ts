import type { DynsecError } from '../../types/dynsec.ts'
import { errors } from '../errors.ts'
import { describe } from '../values.ts'
import type { WireCommand } from './checks.ts'

const {
  FST_MQTT_DYNSEC_INVALID: Invalid,
  FST_MQTT_DYNSEC_NOT_FOUND: NotFound,
  FST_MQTT_DYNSEC_ALREADY_EXISTS: AlreadyExists,
  FST_MQTT_DYNSEC_FORBIDDEN: Forbidden,
  FST_MQTT_DYNSEC_INTERNAL: Internal,
  FST_MQTT_DYNSEC_UNSUPPORTED: Unsupported,
  FST_MQTT_DYNSEC_REJECTED: Rejected
} = errors

/** The error for what the broker answered to a command; its text is matched exactly. */
export function brokerError (sent: WireCommand, answer: string): DynsecError {
  const BrokerError = sent.command === 'addClientRole' && answer === 'Internal error'
    // All that it says of a role which the client has already, in every version.
    ? AlreadyExists
    : meanings.get(answer) ?? Rejected
  const error = new BrokerError(withSubject(sent), answer)
  return Object.assign(error, { command: sent.command, brokerMessage: answer })
}

/** Gives an error of ours the name of its command. */
export function ofCommand (error: Error, { command }: WireCommand): DynsecError {
  return Object.assign(error as DynsecError, { command })
}

/** The command and whom it names, for messages: names and topics, never a password or a text. */
export function withSubject (sent: WireCommand): string {
  const subjects = ['username', 'groupname', 'rolename', 'acltype', 'topic'].map((field) => sent[field])
    .filter((value) => typeof value === 'string')
  return [sent.command, ...subjects.map(describe)].join(' ')
}

// From the sources of Mosquitto 2.0.11, 2.0.22 and 2.1.2; none was ever removed.
const meanings = new Map([
  ...meaning(NotFound, [
    'Client not found', 'Group not found', 'Role not found', 'Role does not exist', 'ACL not found',
    "'clients' contains an object with a 'username' that does not exist",
    "'groups' contains an object with a 'groupname' that does not exist"
  ]),
  ...meaning(AlreadyExists, [
    'Client already exists', 'Group already exists', 'Role already exists', 'ACL with this topic already exists',
    'Client is already in this group', 'Group is already in this role'
  ]),
  ...meaning(Invalid, [
    "'clients' contains an object with an invalid 'username'",
    "'groups' contains an object with an invalid 'groupname'",
    "'roles' not an array or missing/invalid rolename",
    'Client ID not valid UTF-8', 'Group name not valid UTF-8', 'Role name not valid UTF-8', 'Topic not valid UTF-8',
    'Username not valid UTF-8',
    'Empty groupname', 'Empty password is not allowed', 'Empty rolename', 'Empty username',
    'Invalid ACL topic', 'Invalid allowwildcardsubs', 'Invalid correlationData data type.',
    'Invalid/missing acltype', 'Invalid/missing client ID', 'Invalid/missing client id', 'Invalid/missing commands',
    'Invalid/missing groupname', 'Invalid/missing password', 'Invalid/missing rolename',
    'Invalid/missing textdescription', 'Invalid/missing textname', 'Invalid/missing topic', 'Invalid/missing username',
    'Missing/invalid actions array', 'Unknown acltype',
    'Command not an object', 'Missing command', 'Payload not valid JSON'
  ]),
  ...meaning(Forbidden, ['Deleting the anonymous group is forbidden']),
  ...meaning(Internal, ['Internal error']),
  ...meaning(Unsupported, ['Unknown command'])
])

type BrokerErrorClass = typeof Invalid | typeof NotFound | typeof AlreadyExists | typeof Forbidden |
  typeof Internal | typeof Unsupported | typeof Rejected

function meaning (BrokerError: BrokerErrorClass, answers: readonly string[]): [string, BrokerErrorClass][] {
  return answers.map((answer) => [answer, BrokerError])
}
