#!/bin/sh
# Makes the certificates beside this file. FOR DEVELOPMENT AND TESTS ONLY: the private keys are public.
# `openssl ca` is used because it can set both dates, so a machine with a wrong clock makes no
# certificate that is "not yet valid" elsewhere.
set -eu
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/openssl.cnf" <<EOF
[req]
distinguished_name = subject
[subject]
[ca]
default_ca = development
[development]
new_certs_dir = $work
database = $work/index.txt
rand_serial = yes
default_md = sha256
policy = anything
unique_subject = no
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
[anything]
organizationName = optional
commonName = supplied
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = \${ENV::SAN}
[client]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
EOF
: > "$work/index.txt"
export SAN=DNS:localhost

# request NAME COMMON_NAME
request () {
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"
  openssl req -new -config "$work/openssl.cnf" -key "$1.key" -out "$work/$1.csr" \
    -subj "/O=fastify-multimqtt development and tests only/CN=$2"
}

# sign NAME EXTENSIONS [more options of openssl ca]
sign () {
  name=$1 extensions=$2
  shift 2
  openssl ca -config "$work/openssl.cnf" -batch -notext -extensions "$extensions" \
    -keyfile ca.key -in "$work/$name.csr" -out "$name.crt" "$@" 2> "$work/log" || { cat "$work/log"; exit 1; }
}

request ca 'Development CA'
sign ca authority -selfsign

request server localhost
SAN=DNS:localhost,IP:127.0.0.1,IP:::1 sign server server -cert ca.crt

request other-host broker.example
SAN=DNS:broker.example sign other-host server -cert ca.crt

request client test-client
sign client client -cert ca.crt

# The broker drops its privileges before it reads its key.
chmod 644 ./*.key ./*.crt
