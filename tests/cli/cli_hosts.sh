#!/usr/bin/env bash
# Two hosts: network namespaces with a cable between them and host names of their own. mpirun with a hostfile starts two ranks on each, through
# an agent in the place of ssh; the bits are those of one process.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

command -v ip >/dev/null || skip "the command ip is not installed (package iproute2)"
here=tv$$a there=tv$$b
remove_hosts() {
    ip netns del "$here" 2>/dev/null || true
    ip netns del "$there" 2>/dev/null || true
}
trap 'remove_hosts; clean_up' EXIT
problem=$({ ip netns add "$here" && ip netns add "$there" && unshare --uts true; } 2>&1) || skip "no network namespaces here: $problem"
problem=$(ip link add "$here" type veth peer name "$there" 2>&1) || skip "no pair of network devices here: $problem"
number=0
for host in "$here" "$there"; do
    number=$((number + 1))
    ip link set "$host" netns "$host"
    ip -n "$host" link set lo up
    ip -n "$host" addr add "10.77.0.$number/24" dev "$host"
    ip -n "$host" link set "$host" up
done

# What runs on a host: in its namespace, under its name.
cat >on_host <<'HOST'
#!/usr/bin/env bash
name=$1
shift
exec ip netns exec "$name" unshare --uts bash -c 'hostname "$0" && exec "$@"' "$name" "$@"
HOST
# mpirun calls it as it calls ssh: the host, then a command line for its shell.
cat >agent <<AGENT
#!/usr/bin/env bash
case \$1 in
    10.77.0.1) name=$here ;;
    10.77.0.2) name=$there ;;
    *) echo "agent: no host \$1" >&2; exit 1 ;;
esac
shift
echo "\$name" >>"$work/called"
exec "$work/on_host" "\$name" bash -c "\$*"
AGENT
chmod +x on_host agent
printf '10.77.0.1 slots=2\n10.77.0.2 slots=2\n' >hosts

make_small
expect 0 trivote train --config c.yaml --run one
want=$(final_field digest)
expect 0 ./on_host "$here" "$mpiexec" --hostfile hosts --mca plm_rsh_agent "$work/agent" --mca btl_tcp_if_include 10.77.0.0/24 \
    --mca oob_tcp_if_include 10.77.0.0/24 --map-by node --display-map -np 4 "$program" train --config c.yaml --run two
same "$(cat called)" "$there" "hosts that mpirun called"
says 'backend .*, 4 ranks'
same "$(final_field digest)" "$want" "digest of two hosts"
bytes=$(ip -n "$there" -s link show "$there" | awk '/RX/ {getline; print $1}')
[ "$bytes" -gt 100000 ] || fail "only $bytes bytes went through the cable"
echo "$bytes bytes through the cable"
