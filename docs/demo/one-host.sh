#!/usr/bin/env bash
# Three containers on one userspace switch: pings, floods, what was learned, and why each frame went
# where it went. Everything happens in namespaces of its own that vanish when the script ends; as an
# ordinary user it makes a user namespace first. Usage: one-host.sh [path of tapestry]
set -euo pipefail
tapestry=$(realpath "${1:-bin/tapestry}")
PATH=$PATH:/usr/sbin:/sbin

if [ -z "${TAPESTRY_DEMO_INSIDE:-}" ]; then
  for prog in unshare ip ping; do
    command -v $prog >/dev/null || { echo "demo: $prog is missing (hint: apt-get install iproute2 iputils-ping util-linux)" >&2; exit 1; }
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
switch="" frames=""
finish() {
  [ -z "$frames" ] || kill "$frames" 2>/dev/null || true
  [ -z "$switch" ] || { kill "$switch" 2>/dev/null && wait "$switch"; } || true
  rm -rf "$work"
}
trap finish EXIT
export TAPESTRY_SOCKET=$work/tapestry.sock
failed=0

say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }
run() { echo "\$ $*" | sed "s#$tapestry#tapestry#g; s#$work/##g"; "$@" 2>&1 | sed 's/^/  /'; }
expect() { # expect WHAT COMMAND…: runs it silently and reports
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "  ok      $what"; else echo "  NOT OK  $what"; failed=1; fi
}
frames_seen() { grep -c . "$work/frames" || true; }

cat <<'PICTURE'

   container c1        container c2        container c3          three network namespaces,
   10.1.0.2            10.1.0.3            10.1.0.4              each with an eth0 that is a TAP
      │ eth0              │ eth0              │ eth0
  ────┼───────────────────┼───────────────────┼───────────────── kernel
   port c1             port c2             port c3
      └───────────────────┴───────────────────┘
                 tapestry: network blue                          one process in user space
PICTURE

say "1. Three namespaces, and a file that wires them to one network"
for c in c1 c2 c3; do ip netns add $c && ip -n $c link set lo up; done
cat >"$work/demo.yaml" <<'YAML'
networks:
  blue: {vlan: 10}
ports:
  c1: {tap: {netns: c1, address: [10.1.0.2/24], mac: "02:00:00:00:00:01"}, access: blue}
  c2: {tap: {netns: c2, address: [10.1.0.3/24], mac: "02:00:00:00:00:02"}, access: blue}
  c3: {tap: {netns: c3, address: [10.1.0.4/24], mac: "02:00:00:00:00:03"}, access: blue}
YAML
sed 's/^/  /' "$work/demo.yaml"
run "$tapestry" check -c "$work/demo.yaml"

say "2. The switch starts (its log is on stderr; 'ready' means that it forwards)"
mkfifo "$work/ready"
"$tapestry" up -c "$work/demo.yaml" --state "$work/state" >"$work/ready" 2>"$work/log" &
switch=$!
if ! timeout 20 grep -qm1 '^ready$' "$work/ready"; then cat "$work/log" >&2; exit 1; fi
echo "  ready"
"$tapestry" events --kind frame >>"$work/frames" 2>/dev/null &
frames=$!
for _ in $(seq 100); do [ -s "$work/frames" ] && break; ip netns exec c3 ping -c1 -W1 10.1.0.99 >/dev/null 2>&1 || true; done
: >"$work/frames"
run "$tapestry" fdb flush

say "3. c1 pings c2. The first ARP request is flooded: c3 hears it too. From then on nobody else does"
run ip netns exec c1 ping -n -c 3 -i 0.2 10.1.0.3
expect "c2 answered three pings" ip netns exec c1 ping -n -c 3 -i 0.2 -W 1 10.1.0.3
echo
echo "  each frame, and why it went where it went:"
grep -E 'ARP|ICMP' "$work/frames" | head -12 | sed 's/^/  /'
expect "the ARP request was flooded to c2 and c3" grep -qE 'flood blue broadcast → c2, ?c3' "$work/frames"
expect "the ping went to c2 alone" grep -qE 'forward blue known_unicast → c2' "$work/frames"

say "4. What the switch learned, and who taught it"
run "$tapestry" fdb ls
run "$tapestry" fdb why 02:00:00:00:00:02
expect "c1 and c2 were learned" test "$("$tapestry" fdb ls | grep -cE '02:00:00:00:00:0[12]')" = 2

say "5. What would happen to a frame to a stranger (nothing is sent)"
run "$tapestry" explain --in c1 'icmp 10.1.0.2 > 10.1.0.77 to 02:00:00:00:00:77'

say "6. The counters add up: every frame has a verdict, every drop a reason"
run "$tapestry" stats

say "7. The worker, the process that touches frames, is killed with -9. Links stay up, nothing is forgotten"
worker=$("$tapestry" stats --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | head -1)
ip netns exec c1 ping -n -q -c 20 -i 0.05 10.1.0.3 >"$work/ping" &
pinger=$!
kill -9 "$worker"
wait $pinger || true
sed -n 's/^/  /; /transmitted/p' "$work/ping" | grep transmitted
expect "no ping was lost" grep -q ' 0% packet loss' "$work/ping"
expect "the FDB is as it was" grep -q 02:00:00:00:00:02 <("$tapestry" fdb ls)

say "8. The switch stops, and takes away all that it made"
kill "$frames"; frames=""
kill "$switch"; wait "$switch" && echo "  exit code 0"; switch=""
expect "no interface is left in c1" bash -c "! ip -n c1 link show eth0"

echo
if [ $failed = 0 ]; then echo "demo: every check held"; else echo "demo: something did not hold; the log of the switch:"; cat "$work/log"; fi
exit $failed
