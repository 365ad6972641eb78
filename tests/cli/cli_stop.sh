#!/usr/bin/env bash
# Requests: each signal in each phase of a run, on one rank and on two; the files `save` and `stop`; a second SIGINT; time limits; SIGKILL of
# a rank in a step. A stopped run leaves with 75 and goes on to the bits of the run that nobody disturbed.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

# mpirun would kill its processes one second after SIGTERM or SIGINT.
patient() {
    "$mpiexec" --mca odls_base_sigkill_timeout 600 -np "$1" "$program" "${@:2}"
}

expect 0 trivote train --config c.yaml --run whole
want=$(final_field digest)

# A process of the background session that a fail point has stopped.
halted() {
    ps -s "$background" -o stat=,pid= | awk '$1 ~ /^T/ {print $2; found = 1} END {exit !found}'
}

# disturb RANKS POINT SIGNAL ARGUMENT...: the run comes to the fail point (:hit=N may follow its name), rank 0 halts there, the signal
# arrives, rank 0 goes on after a moment. Its exit code is in `code`.
disturb() {
    local count=$1 point=$2 signal=$3 pid
    shift 3
    export TV_FAULT="$point:rank=0:stop,$point:rank=0:delay=0.2"
    if [ "$count" -eq 1 ]; then
        in_background run.log "$program" train --config c.yaml "$@"
    else
        in_background run.log "$mpiexec" --mca odls_base_sigkill_timeout 600 -np "$count" "$program" train --config c.yaml "$@"
    fi
    unset TV_FAULT
    wait_for 30 halted || fail "$point was not reached: $(cat run.log)"
    pid=$(halted)
    kill "-$signal" "$background"
    sleep 0.1 # mpirun hands it on
    kill -CONT "$pid"
    join_background run.log
    rm run.log
}

go_on() {
    expect 0 trivote train --config c.yaml --run run
    same "$(final_field digest)" "$want" "digest after $1"
}

newest_step() {
    basename "$(newest run)"
}

declare -A last=([step.guard:hit=3]=step-000000003 [eval.batch:hit=2]=step-000000004 [save.begin]=step-000000004)
for count in 1 2; do
    for signal in USR2 TERM INT; do
        rm -rf run
        disturb "$count" start.model "$signal" --run run
        same "$code" 75 "exit code after SIG$signal in start-up of $count ranks"
        says_once 'stopped on request before the first step'
        [ -z "$(newest run)" ] || fail "a checkpoint without a step"
        for point in step.guard:hit=3 eval.batch:hit=2 save.begin; do
            rm -rf run
            disturb "$count" "$point" "$signal" --run run
            same "$code" 75 "exit code after SIG$signal at $point of $count ranks"
            says_once 'stopped on request after step'
            same "$(newest_step)" "${last[$point]}" "checkpoint after SIG$signal at $point of $count ranks"
            go_on "SIG$signal at $point of $count ranks"
        done
        rm -rf run
        expect 0 trivote train --config c.yaml --run run --set train.stop_at=3
        disturb "$count" resume.load "$signal" --run run
        same "$code" 75 "exit code after SIG$signal while $count ranks load"
        same "$(newest_step)" step-000000003 "checkpoint after SIG$signal while $count ranks load"
        go_on "SIG$signal while $count ranks load"
    done
    for point in start.model step.guard:hit=3 eval.batch:hit=1 save.begin; do
        rm -rf run
        disturb "$count" "$point" USR1 --run run --set checkpoint.keep=9
        same "$code" 0 "exit code after SIGUSR1 at $point of $count ranks"
        same "$(final_field digest)" "$want" "digest after SIGUSR1 at $point of $count ranks"
        same "$(find run -name 'step-*' | wc -l)" 3 "checkpoints, one of them asked for, after SIGUSR1 at $point of $count ranks"
    done
done
