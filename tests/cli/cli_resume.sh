#!/usr/bin/env bash
# Stopping and going on, on another number of ranks, changes no bit; a complete run says its final line again.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

expect 0 trivote train --config c.yaml --run whole
want=$(final_field digest)
bpb=$(final_field val_bpb)

expect 0 ranks 4 train --config c.yaml --run parts --set train.stop_at=4
same "$(final_field step)" 4 "steps of the first part"
differ "$(final_field digest)" "$want" "digest of half a run"
half=$(final_field digest)
expect 0 ranks 3 train --config c.yaml --run parts --resume auto
says 'resumed'
same "$(final_field digest)" "$want" "digest after 4 ranks, then 3"
same "$(final_field val_bpb)" "$bpb" "val_bpb after 4 ranks, then 3"

# A stop between two periodic checkpoints, three parts, both exchanges.
expect 0 ranks 2 train --config c.yaml --run three --set train.stop_at=3 --set vote.exchange=sharded
expect 0 trivote train --config c.yaml --run three --set train.stop_at=5 --resume auto
expect 0 ranks 4 train --config c.yaml --run three --resume auto --set vote.exchange=sharded
same "$(final_field digest)" "$want" "digest after three parts"

# From a named checkpoint into another run folder.
expect 0 trivote train --config c.yaml --run elsewhere --resume parts/step-000000004
same "$(final_field digest)" "$want" "digest after a named checkpoint"
expect 0 trivote digest --checkpoint parts/step-000000004
same "$out" "$half" "digest of the first part"

# A complete run: nothing to do, the same last word. This is what a second ./bootstrap demo meets.
before=$(find parts -name 'step-*' | sort)
expect 0 ranks 2 train --config c.yaml --run parts --resume auto
same "$(final_field digest)" "$want" "digest of a complete run"
same "$(final_field val_bpb)" "$bpb" "val_bpb of a complete run"
same "$(find parts -name 'step-*' | sort)" "$before" "checkpoints of a complete run"

# --resume never keeps its hands off what is there; another config does not resume.
expect 2 trivote train --config c.yaml --run parts --resume never
says 'never'
same "$(find parts -name 'step-*' | sort)" "$before" "checkpoints after a refused start"
expect 2 trivote train --config c.yaml --run three --resume parts/step-000000004 --set model.ffn=64
says 'ffn|config'
expect 1 trivote train --config c.yaml --run three --resume nowhere/step-000000004
says 'nowhere'
