#!/usr/bin/env bash
# Each kind of collective fails, and stops, on one rank: the run ends in time, with 1 or 70.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
settings=(--set train.steps=2 --set comm.timeout=1 --set comm.start_timeout=2 --set vote.exchange=sharded)
export TV_START_TIMEOUT=5

# breaks POINT ACTION CODE
breaks() {
    local begun=$SECONDS
    out=$(TV_FAULT="$1:rank=1:$2" timeout -k 5 60 "$mpiexec" -np 2 "$program" train --config tests/data/invariance-moe.yaml \
        --run "$work/$1" "${settings[@]}" 2>&1 </dev/null) && code=0 || code=$?
    [[ " $3 " == *" $code "* ]] || fail "$1, $2: exit code $code, not $3"
    [ $((SECONDS - begun)) -lt 30 ] || fail "$1, $2: $((SECONDS - begun)) s"
    says 'trivote: error|signal 9'
}

for point in start sum reduce_scatter all_gather broadcast all_to_all barrier agree split wait; do
    breaks comm.$point errno=EIO 1
    says "fail point comm.$point: Input/output error"
    [ "$point" = wait ] || breaks comm.$point stop 70
done
breaks comm.sum:hit=5 kill "1 137"

# tells POINT RANK CONFIG [:hit=N]: the sentence of the rank that fails is printed, once, whichever it is.
tells() {
    local got=0
    out=$(TV_FAULT="$1:rank=$2${4:-}:errno=EIO" ranks 2 train --config "tests/data/invariance-$3.yaml" --run "$work/tells-$1-$2-$3" 2>&1) || got=$?
    same "$got" 1 "exit code, $1 on rank $2"
    says_once "^trivote: error: (rank 0: )?rank $2: .*Input/output error"
    says_once 'trivote: error'
}
for rank in 0 1; do
    tells memgram.rows $rank memgram # in the midst of exchanges that the other rank waits in
    tells graph.edges $rank graph
    tells step.start $rank moe # before them: all agree
    tells corpus.read $rank moe :hit=2
    tells features.read $rank modality :hit=9
done
