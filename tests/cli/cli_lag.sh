#!/usr/bin/env bash
# The rank that is slowest is named with what it is slow at, also in the metrics; GPUs' figures stand there where a library tells them.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small
settings=(--config c.yaml --set train.eval_every=0 --set checkpoint.every=0)

expect 0 ranks 3 train "${settings[@]}" --run even --set run.lag_every=0
want=$(final_field digest)
says_not 'is slowest'
if grep -q '"event":"ranks"' even/metrics.jsonl; then fail "times of the ranks with run.lag_every=0"; fi

# Each unit's forward takes 100 ms longer on rank 1: four units a step on each of three ranks.
export TV_FAULT='step.forward:rank=1:hit=*:delay=0.1'
expect 0 ranks 3 train "${settings[@]}" --run slow --set run.lag_every=0.2
unset TV_FAULT
same "$(final_field digest)" "$want" "digest with one slow rank"
says 'rank 1 is slowest: forward [4-9][0-9][0-9](\.[0-9]+)? ms a step, [0-9.]+x the median'
grep -qE '"event":"ranks","step":[0-9]+,"time":[0-9.]+,"steps":[1-9][0-9]*,"slowest_rank":1,"ratio":[0-9.]+,"phase":"forward"' slow/metrics.jsonl ||
    fail "no record of the ranks: $(grep ranks slow/metrics.jsonl)"
if grep -q '"gpu"' slow/metrics.jsonl; then fail "a GPU on a machine that computes on the CPU"; fi

# The same with a library that knows two GPUs, the second one in trouble; the third rank has none.
fake=${TV_FAKE_NVML:?the path of the library that stands for NVML}
export TV_NVML=$fake TV_FAULT='step.start:rank=2:hit=*:delay=0.3'
expect 0 ranks 3 train "${settings[@]}" --run watched --set run.lag_every=0.2
unset TV_NVML TV_FAULT
same "$(final_field digest)" "$want" "digest with GPUs watched"
says 'rank 2 is slowest: data [0-9.]+ ms a step'
says 'the GPU of rank 1 is slowed by heat$'
says_once 'the GPU of rank 1 counts 2 uncorrected memory errors'
grep -qF '"gpus":2,"power_w":912.5,"throttled_ranks":1,"hottest_rank":1,"gpu":{"temperature_c":91,' watched/metrics.jsonl ||
    fail "no GPUs among the ranks: $(grep ranks watched/metrics.jsonl)"
grep '"event":"step","step":1,' watched/metrics.jsonl | grep -qF '"gpu":{"temperature_c":54,"power_w":300,"ecc_uncorrected":0,"throttle":["idle"]}' ||
    fail "no GPU in the first step: $(head -n 2 watched/metrics.jsonl)"
