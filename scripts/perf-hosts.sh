#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes between two hosts (network namespaces joined by veth): the library, raw libfabric, iperf3, UCX. Needs root.
# usage: scripts/perf-hosts.sh [BUILD_DIR] [MTU]
set -eu
cd "$(dirname "$0")/.."
build=$(realpath "${1:-build}") mtu=${2:-1500}
ninja -C "$build" bench/ofi_raw bench/hosts_put >/dev/null
work=$(mktemp -d) a=smem-$$-a b=smem-$$-b
pids=()
finish() {
	for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
	ip netns del $a 2>/dev/null || true
	ip netns del $b 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
ip netns add $a
ip netns add $b
ip -n $a link add eth0 type veth peer name eth0 netns $b
n=1
for ns in $a $b; do
	ip -n $ns addr add 10.78.0.$n/24 dev eth0
	ip -n $ns link set eth0 mtu "$mtu" up
	ip -n $ns link set lo up
	n=$((n + 1))
done
in_a() { ip netns exec $a "$@"; }
in_b() { ip netns exec $b "$@"; }
# A process in namespace $a, in the background; CMA would not stop at a namespace, so a shell of another pid namespace
start_a() { ip netns exec $a unshare --pid --fork --kill-child "$@" & pids+=($!); disown; }
await() { for _ in $(seq 3000); do [ -s "$1" ] && return; read -rt 0.01 <> <(:) || true; done; echo "no $1" >&2; exit 1; }

echo "# veth, MTU $mtu, $(nproc) CPUs, load $(cut -d' ' -f1 /proc/loadavg); CPU: at the writer, at the target"
start_a "$build/bench/hosts_put" target tcp://10.78.0.1:7001 "$work/smem" 2>"$work/log"
await "$work/smem"
in_b "$build/bench/hosts_put" write tcp://10.78.0.1:7001 "$work/smem" 2>>"$work/log" || cat "$work/log"
kill -9 "${pids[-1]}"
start_a "$build/bench/ofi_raw" target 10.78.0.1 "$work/raw"
await "$work/raw"
in_b "$build/bench/ofi_raw" write 10.78.0.2 "$work/raw"
kill -9 "${pids[-1]}"
if command -v iperf3 >/dev/null; then
	start_a iperf3 -s -p 7002 >/dev/null
	for streams in 1 4; do
		for _ in 1 2 3; do
			in_b iperf3 -c 10.78.0.1 -p 7002 -t 3 -l 1M -P $streams --connect-timeout 5000 2>/dev/null |
				awk -v n=$streams '/receiver/ && (n == 1 || /SUM/) {
					for (i = 1; i < NF; i++) if ($(i + 1) ~ /bits/)
						printf "iperf3 %d streams: %.2f %s = %.2f GB/s\n", n, $i, $(i + 1), $i / 8 }' && break
		done
	done
	kill -9 "${pids[-1]}"
fi
if command -v ucx_perftest >/dev/null; then
	for size in 4096 1048576 16777216; do
		for test in ucp_put_bw ucp_am_bw; do
			UCX_TLS=tcp UCX_NET_DEVICES=eth0 start_a ucx_perftest -p 7003 >/dev/null 2>&1
			for _ in $(seq 50); do
				UCX_TLS=tcp UCX_NET_DEVICES=eth0 in_b timeout 60 ucx_perftest -p 7003 10.78.0.1 -t $test \
					-s $size -n 100 -f 2>/dev/null | tail -1 >"$work/ucx"
				grep -q "^ *[0-9]" "$work/ucx" && break
			done
			echo "ucx $test $size: $(cat "$work/ucx")"
			kill -9 "${pids[-1]}" 2>/dev/null || true
		done
	done
fi
