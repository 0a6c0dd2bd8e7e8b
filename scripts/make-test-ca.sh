#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# usage: scripts/make-test-ca.sh DIR
#
# A certificate authority for tests, and for trying TLS out, in DIR (made if need be): ca.pem,
# node.pem and node.key are what SMEM_CONF_STORE_TLS_INFO wants (the last lines say how). Beside
# them lies one of each kind that must be refused. Keys are not protected by more than their mode:
# not for production.
set -eu
[ $# -eq 1 ] || { sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 2; }
command -v openssl >/dev/null || { echo "$0: needs openssl(1)" >&2; exit 1; }
mkdir -p "$1"
cd "$1"
umask 077
exec 3>&2 2>openssl.log
trap 'r=$?; [ $r -eq 0 ] || { echo "$0: failed:" >&3; tail -5 openssl.log >&3; }; exit $r' EXIT

cat > ca.conf <<'CONF'
[ca]
default_ca = this
[this]
dir = .
database = $dir/$ENV::CA.db
new_certs_dir = $dir
serial = $dir/$ENV::CA.serial
default_md = sha256
default_crl_days = 3650
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
[both]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
[mail]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = emailProtection
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[req]
distinguished_name = name
[name]
CONF

ec='-algorithm EC -pkeyopt ec_paramgen_curve:P-256'

# authority NAME
authority() {
	openssl genpkey $ec -out "$1.key"
	CA=$1 openssl req -x509 -new -key "$1.key" -sha256 -days 7300 -subj "/CN=smem test $1" \
		-config ca.conf -extensions root -out "$1.pem"
	: > "$1.db"
	echo 01 > "$1.serial"
}

# certificate AUTHORITY NAME EXTENSIONS START END   (the key exists)
certificate() {
	CA=$1 openssl req -new -key "$2.key" -subj "/CN=smem $2" -config ca.conf -out "$2.csr"
	CA=$1 openssl ca -batch -config ca.conf -cert "$1.pem" -keyfile "$1.key" -in "$2.csr" \
		-extensions "$3" -startdate "$4" -enddate "$5" -notext -out "$2.pem"
}

past=20000101000000Z
now=20200101000000Z
future=20480101000000Z
far=20490101000000Z

authority ca
authority otherca
for name in node peer expired notyet revoked mail; do
	openssl genpkey $ec -out $name.key
done
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out weak.key
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key
openssl genpkey $ec -out stranger.key
for name in node peer revoked weak rsa; do
	certificate ca $name both $now $far
done
certificate ca mail mail $now $far
certificate ca expired both $past $now
certificate ca notyet both $future $far
certificate otherca stranger both $now $far

# The same key as node.key, under a pass phrase.
printf 'open sesame\n' > node.pwd
printf 'wrong\n' > wrong.pwd
openssl pkcs8 -topk8 -v2 aes-256-cbc -in node.key -passout file:node.pwd -out node.enc.key
cp node.key open.key
chmod 644 open.key

CA=ca openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -gencrl -out empty.crl
CA=ca openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -revoke revoked.pem
CA=ca openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -gencrl -out ca.crl
CA=ca openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -gencrl \
	-crl_lastupdate $past -crl_nextupdate $now -out old.crl
CA=otherca openssl ca -batch -config ca.conf -cert otherca.pem -keyfile otherca.key -gencrl \
	-out otherca.crl
rm -f [0-9]*.pem ./*.csr ./*.old ./*.attr

echo "export SMEM_CONF_STORE_TLS_ENABLE=1"
echo "export SMEM_CONF_STORE_TLS_INFO='tlsCaPath: $PWD; tlsCaFile: ca.pem; tlsCert: $PWD/node.pem; tlsPk: $PWD/node.key; tlsCrlPath: $PWD; tlsCrlFile: ca.crl'"
