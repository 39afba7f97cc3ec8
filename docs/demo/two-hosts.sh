#!/usr/bin/env bash
# Two hosts, one network: a ping across, seen inside the network and on the wire between the hosts. The
# inner TTL stays as it is, the outer one is the tunnel's own. Then the kernel's VXLAN device joins as a
# third host. Everything happens in namespaces of its own that vanish when the script ends; as an ordinary
# user it makes a user namespace first. Usage: two-hosts.sh [path of tapestry]
set -euo pipefail
tapestry=$(realpath "${1:-bin/tapestry}")
PATH=$PATH:/usr/sbin:/sbin

if [ -z "${TAPESTRY_DEMO_INSIDE:-}" ]; then
  for prog in unshare ip ping tcpdump bridge; do
    command -v $prog >/dev/null || { echo "demo: $prog is missing (hint: apt-get install iproute2 iputils-ping tcpdump util-linux)" >&2; exit 1; }
  done
  if ! (exec 3<>/dev/net/tun) 2>/dev/null; then
    echo "demo: /dev/net/tun can't be opened, and the switch's ports are TAP devices" >&2
    echo "hint: run as root, or let users open it: sudo modprobe tun && sudo chmod 0666 /dev/net/tun" >&2
    exit 1
  fi
  own=(--net --mount --pid --fork --kill-child --mount-proc)
  [ "$(id -u)" = 0 ] || own+=(--user --map-root-user)
  export TAPESTRY_DEMO_INSIDE=1
  exec unshare "${own[@]}" "$0" "$tapestry"
fi

mount -t tmpfs tmpfs /run
mkdir -p /run/netns
work=$(mktemp -d)
pids=()
finish() {
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
failed=0

say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }
run() { echo "\$ $*" | sed "s#$tapestry#tapestry#g; s#$work/##g"; "$@" 2>&1 | sed 's/^/  /'; }
expect() { # expect WHAT COMMAND…: runs it silently and reports
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "  ok      $what"; else echo "  NOT OK  $what"; failed=1; fi
}
soon() { for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; return 1; }

cat <<'PICTURE'

   container c1 10.1.0.1                              container c2 10.1.0.2
        │ eth0                                             │ eth0
   tapestry on h1: network blue                       tapestry on h2: network blue
        │ UDP 4789, VNI 10010                              │
   under0 192.0.2.1 ──────────── the underlay ──────── under0 192.0.2.2
PICTURE

say "1. Two hosts with a wire between them, and one file for both"
ip netns add wire
ip -n wire link add lan type bridge
ip -n wire link set lan up
for i in 1 2 3; do
  ip netns add h$i; ip netns add c$i
  ip -n h$i link set lo up
  ip -n h$i link add under0 type veth peer name slot$i netns wire
  ip -n wire link set slot$i master lan up
  ip -n h$i addr add 192.0.2.$i/24 dev under0
  ip -n h$i link set under0 up
done
cat >"$work/fabric.yaml" <<'YAML'
networks:
  blue: {vlan: 10, vni: 10010}
tunnel:
  peers:                          # a host skips its own entry
    h1: {address: 192.0.2.1}
    h2: {address: 192.0.2.2}
    h3: {address: 192.0.2.3}
YAML
sed 's/^/  /' "$work/fabric.yaml"

say "2. A switch on each host, a container on each switch"
for i in 1 2; do
  mkfifo "$work/ready$i"
  ip netns exec h$i "$tapestry" up -c "$work/fabric.yaml" --socket "$work/h$i.sock" --state "$work/state$i" >"$work/ready$i" 2>"$work/log$i" &
  pids+=($!)
  if ! timeout 20 grep -qm1 '^ready$' "$work/ready$i"; then cat "$work/log$i" >&2; exit 1; fi
  run "$tapestry" attach netns:c$i --network blue --port c$i --address 10.1.0.$i/24 --mac 02:00:00:00:00:0$i --socket "$work/h$i.sock"
done
soon ip netns exec c1 ping -n -c 1 -W 1 10.1.0.2
expect "c1 reaches c2" ip netns exec c1 ping -n -c 3 -i 0.1 -W 1 10.1.0.2

say "3. One ping, captured inside (c2's eth0) and outside (h2's under0)"
ip netns exec c2 tcpdump -n -v -l --immediate-mode -i eth0 'icmp[0] == 8' >"$work/inner" 2>"$work/inner.err" &
pids+=($!)
ip netns exec h2 tcpdump -n -v -l --immediate-mode -i under0 'udp dst port 4789 and src host 192.0.2.1 and greater 130' >"$work/outer" 2>"$work/outer.err" &
pids+=($!)
soon grep -q listening "$work/inner.err"; soon grep -q listening "$work/outer.err"
run ip netns exec c1 ping -n -c 1 -t 23 10.1.0.2
soon grep -q 10.1.0.2 "$work/inner"; soon grep -q 10.1.0.2 "$work/outer"
echo "  inside, at c2:"
grep -m1 -A1 'ttl 23' "$work/inner" | sed 's/^/    /'
echo "  outside, on the wire (the outer header first, the inner one behind it):"
grep -m1 -B3 -A1 'ttl 23' "$work/outer" | sed 's/^/    /'
expect "the inner TTL is 23 on both sides: bridges don't route" grep -q 'ttl 23' "$work/inner"
expect "the outer TTL is the tunnel's own, 64" grep -q 'ttl 64.*proto UDP' "$work/outer"

say "4. What h1 knows of its peers, and where c2 is"
run "$tapestry" peer ls --socket "$work/h1.sock"
run "$tapestry" fdb why 02:00:00:00:00:02 --socket "$work/h1.sock"
run ip -n c1 link show eth0

say "5. A third host with nothing but the kernel's VXLAN device and a bridge"
kernel() { echo "\$ $*"; ip netns exec h3 "$@"; }
kernel ip link add vx0 type vxlan id 10010 local 192.0.2.3 dstport 4789
kernel bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.1
kernel bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.2
kernel ip link add br0 type bridge
kernel ip link set vx0 master br0 up
kernel ip link set br0 up
ip -n h3 link add v0 type veth peer name eth0 netns c3
ip -n h3 link set v0 master br0 up
ip -n c3 addr add 10.1.0.3/24 dev eth0
ip -n c3 link set eth0 mtu 1450 up
soon ip netns exec c3 ping -n -c 1 -W 1 10.1.0.1
expect "c3 behind the kernel reaches c1" ip netns exec c3 ping -n -c 3 -i 0.1 -W 1 10.1.0.1
expect "and c2" ip netns exec c2 ping -n -c 3 -i 0.1 -W 1 10.1.0.3
soon bash -c "$tapestry peer ls --socket $work/h1.sock | grep h3 | grep -q passive"
run "$tapestry" peer ls --socket "$work/h1.sock"

echo
if [ $failed = 0 ]; then echo "demo: every check held"; else echo "demo: something did not hold; the logs of the switches:"; cat "$work"/log*; fi
exit $failed
