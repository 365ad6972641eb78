#!/usr/bin/env bash
# Requests: each signal in each phase of a run, on one rank and on two; the files `save` and `stop`; a second SIGINT; time limits; SIGKILL of
# a rank in a step. A stopped run leaves with 75 and goes on to the bits of the run that nobody disturbed.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

expect 0 trivote train --config c.yaml --run whole
want=$(final_field digest)

# A process of the background session that a fail point has stopped.
halted() {
    ps -s "$background" -o stat=,pid= | awk '$1 ~ /^T/ {print $2; found = 1} END {exit !found}'
}

# Open MPI's mpirun, when a process leaves with a status other than 0, waits for this many seconds twice before it ends itself.
export OMPI_MCA_odls_base_sigkill_timeout=0

# disturb RANKS POINT SIGNAL ARGUMENT...: the run comes to the fail point (:hit=N may follow its name), a rank halts there, the last one
# where all come by, the signal arrives, the rank goes on after a moment. Its exit code is in `code`. mpirun hands SIGUSR1 and SIGUSR2 on to
# all; the others go to that rank alone.
disturb() {
    local count=$1 point=$2 signal=$3 pid
    local rank=$((count - 1))
    shift 3
    [ "$point" != save.begin ] || rank=0
    export TV_FAULT="$point:rank=$rank:stop,$point:rank=$rank:delay=0.2"
    if [ "$count" -eq 1 ]; then
        in_background run.log "$program" train --config c.yaml "$@"
    else
        in_background run.log "$mpiexec" -np "$count" "$program" train --config c.yaml "$@"
    fi
    unset TV_FAULT
    wait_for 30 halted || fail "$point was not reached: $(cat run.log)"
    pid=$(halted)
    case $signal in
        USR?) kill "-$signal" "$background" ;;
        *) kill "-$signal" "$pid" ;;
    esac
    sleep 0.1
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
            [ "$count" -eq 1 ] || [ "$signal" = USR2 ] || break # the ranks agree alike on each of them
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

# SIGTERM and SIGINT to mpirun itself. It waits for its time to kill, sends SIGTERM, waits again, hands no line on meanwhile, and says 1
# whatever its processes say.
for signal in TERM INT; do
    rm -rf run
    in_background run.log "$mpiexec" --mca odls_base_sigkill_timeout 2 -np 2 "$program" train --config c.yaml --run run \
        --set train.steps=4000 --set checkpoint.every=0 --set train.eval_every=0 --set run.log_every=1000
    wait_for 30 grep -q '"step":3,' run/metrics.jsonl || fail "no third step: $(cat run.log)"
    kill "-$signal" "$background"
    join_background run.log
    rm run.log
    expect 0 trivote verify --checkpoint "$(newest run)"
    same "$(grep -c '"event":"checkpoint"' run/metrics.jsonl)" 1 "checkpoints after SIG$signal to mpirun"
done

# A second SIGINT ends the process at once, by the signal's own action.
rm -rf run
in_background run.log env TV_FAULT=step.guard:hit=3:stop,step.guard:hit=3:delay=60 "$program" train --config c.yaml --run run
wait_for 30 halted || fail "no third step: $(cat run.log)"
kill -INT "$background"
kill -CONT "$background"
sleep 0.2
kill -0 "$background" || fail "the first SIGINT ended the process"
begun=$SECONDS
kill -INT "$background"
join_background run.log
same "$code" 130 "exit code after a second SIGINT"
[ $((SECONDS - begun)) -lt 30 ] || fail "a second SIGINT took $((SECONDS - begun)) s"
rm run.log

# Files in the run folder, looked for by rank 0 and removed when seen.
for count in 1 2; do
    rm -rf run && mkdir run && touch run/stop
    expect 75 ranks "$count" train --config c.yaml --run run
    says_once 'before the first step'
    [ ! -e run/stop ] || fail "the file stop is still there"
    export TV_FAULT=step.guard:rank=0:hit=3:stop
    in_background run.log "$mpiexec" -np "$count" "$program" train --config c.yaml --run run --set checkpoint.keep=9
    unset TV_FAULT
    wait_for 30 halted || fail "no third step: $(cat run.log)"
    touch run/save
    kill -CONT "$(halted)"
    join_background run.log
    rm run.log
    same "$code" 0 "exit code after a file save"
    same "$(final_field digest)" "$want" "digest after a file save"
    [ ! -e run/save ] || fail "the file save is still there"
    [ -d run/step-000000003 ] || fail "the file save made no checkpoint: $(ls run)"
done
rm -rf run
export TV_FAULT=eval.batch:rank=0:hit=2:stop
in_background run.log "$mpiexec" -np 2 "$program" train --config c.yaml --run run
unset TV_FAULT
wait_for 30 halted || fail "no evaluation: $(cat run.log)"
touch run/stop
kill -CONT "$(halted)"
join_background run.log
rm run.log
same "$code" 75 "exit code after a file stop in an evaluation"
same "$(newest_step)" step-000000004 "checkpoint after a file stop in an evaluation"
go_on "a file stop in an evaluation"

# Time. Steps of 0.2 s and 12 s in all: 1.5 saves, two steps and a second are kept back.
slow='step.start:hit=*:delay=0.2'
timed() {
    TV_FAULT=$slow "$@"
}
rm -rf run
expect 75 timed trivote train --config c.yaml --run run --set train.steps=60 --max-time 7s
says_once 'stopped in time for a save after step'
step=$(basename "$(newest run)")
[ "$((10#${step#step-}))" -ge 3 ] || fail "a time limit of 7 s left only $step"
rm -rf run
expect 75 timed env SLURM_JOB_END_TIME=$(($(date +%s) + 10)) "$mpiexec" -np 2 "$program" train --config c.yaml --run run --set train.steps=60
says_once 'stopped in time for a save after step'
expect 75 trivote train --config c.yaml --run run2 --max-time 0.5
says_once 'before the first step'
expect 0 trivote train --config c.yaml --run run3 --max-time 1h30m
same "$(final_field digest)" "$want" "digest of a run with time enough"
for wrong in soon 5x 0 -3 1h30 ''; do
    expect 2 trivote train --config c.yaml --run run4 --max-time "$wrong"
    says_once 'takes a time such as'
done

# A save that takes longer than mpirun would leave it is told once, with what to pass; no word when there is time.
rm -rf run
slow='save.begin:hit=*:delay=1.2'
expect 0 timed "$mpiexec" --mca odls_base_sigkill_timeout 1 -np 2 "$program" train --config c.yaml --run run --set checkpoint.every=3
says_once 'odls_base_sigkill_timeout [0-9]+'
rm -rf run
expect 0 timed "$mpiexec" --mca odls_base_sigkill_timeout 5 -np 2 "$program" train --config c.yaml --run run --set checkpoint.every=3
says_not 'odls_base_sigkill_timeout'
rm -rf run
expect 0 timed trivote train --config c.yaml --run run --set checkpoint.every=3
says_not 'odls_base_sigkill_timeout'

# SIGKILL of one rank in a step: the job ends, and goes on to the same bits.
for point in step.guard step.ballot; do
    rm -rf run
    got=0
    out=$(TV_FAULT=$point:rank=1:hit=6:kill "$mpiexec" -np 2 "$program" train --config c.yaml --run run --set checkpoint.async=false 2>&1) ||
        got=$?
    [ "$got" -ne 0 ] || fail "a killed rank went unnoticed"
    same "$(newest_step)" step-000000004 "checkpoint after SIGKILL at $point"
    expect 0 ranks 2 train --config c.yaml --run run
    same "$(final_field digest)" "$want" "digest after SIGKILL at $point"
done
