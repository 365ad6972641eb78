#!/usr/bin/env bash
# Walks fail points: fault_walk.sh PROGRAM MPIEXEC ROOT LIST GROUP
#
# For each point whose name begins with GROUP. and each action that it takes (of TV_FAULT_ACTIONS; without it errno, kill, flip-bit and nan; stop takes longer), on the first of
# two ranks where it shows: a run that has a checkpoint goes on with the fault. It must end in bounded time, with success and the right digest or with an
# documented exit code; then the run goes on without the fault, and must end with the digest of a run that nothing
# happened to. Each point and action must show on one of the ranks at least, or the walk would prove nothing.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cli/common.sh"
list=${4:?} group=${5:?}
wanted=${TV_FAULT_ACTIONS:-errno kill flip-bit nan}
cd "$root"
settings=(--set train.steps=7 --set train.eval_every=3 --set checkpoint.every=2 --set checkpoint.keep=2 --set guard.hash_every=3)
settings+=(--set comm.timeout=3 --set comm.start_timeout=15)
walked=0

# go_on RUN: train RUN to its end, on two ranks; *code and out are what came of it.
go_on() {
    code=0
    out=$(TV_FAULT="${fault:-}" timeout -k 5 90 "$mpiexec" -np 2 "$program" train --config tests/data/invariance.yaml \
        "${settings[@]}" --run "$1" 2>&1 </dev/null) || code=$?
}

allowed() {
    case $1 in
        0 | 1 | 70 | 74 | 75 | 137) return 0 ;;
        *) return 1 ;;
    esac
}

# walk POINT ACTION RANK: whether the fault showed.
walk() {
    local point=$1 action=$2 rank=$3 run=$work/run
    [ "$action" = errno ] && action=errno=ENOSPC
    rm -rf "$run"
    cp -r "$work/start" "$run"
    fault="$point:rank=$rank:$action" go_on "$run"
    local shown=$code said=$out
    [ "$code" -ne 124 ] || fail "$point, $action, rank $rank: not over after 90 s"
    allowed "$code" || fail "$point, $action, rank $rank: exit code $code"
    [ "$code" -ne 0 ] || same "$(final_field digest)" "$want" "digest of a run that went on: $point, $action, rank $rank"
    [ "$code" -eq 0 ] || grep -q . <<<"$out" || fail "$point, $action, rank $rank: nothing said"
    go_on "$run"
    [ "$code" -eq 0 ] || fail "$point, $action, rank $rank: does not go on afterwards"
    same "$(final_field digest)" "$want" "digest after $point, $action, rank $rank"
    walked=$((walked + 1))
    [ "$shown" -ne 0 ] || grep -q "fail point\|failed\|WARN\|warn" <<<"$said"
}

fault= go_on "$work/whole"
[ "$code" -eq 0 ] || fail "a run without faults"
want=$(final_field digest)
settings+=(--set train.stop_at=2)
go_on "$work/start"
[ "$code" -eq 0 ] || fail "a run of two steps"
unset 'settings[-1]' 'settings[-1]'

while read -r -u 3 point actions; do
    [ "${point%%.*}" = "$group" ] || continue
    for action in $actions kill stop; do
        [[ " $wanted " == *" $action "* ]] || continue
        shown=0
        for rank in 0 1; do
            ! walk "$point" "$action" "$rank" || { shown=1 && break; }
        done
        [ $shown -eq 1 ] || fail "$point, $action: showed on no rank"
    done
done 3< <("$list")
[ $walked -gt 0 ] || fail "no fail point is called $group.*"
echo "$walked runs broken on purpose"
