#!/usr/bin/env bash
# One run a folder at a time; a stop on request saves and ends with 75; a dry run touches nothing.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

# A dry run says what would happen and leaves no trace.
before=$(find . | sort)
expect 0 trivote train --config c.yaml --run dry --dry-run
says 'width: *64'
says 'units'
says 'weights'
same "$(find . | sort)" "$before" "files after a dry run"
expect 0 ranks 2 train --config c.yaml --run dry --dry-run
same "$(find . | sort)" "$before" "files after a dry run on two ranks"

expect 0 trivote train --config c.yaml --run whole --set train.steps=300 --set checkpoint.every=0
want=$(final_field digest)

# While one run lives, a second one on its folder is refused and does it no harm.
in_background first.log "$mpiexec" -np 2 "$program" train --config c.yaml --run shared --set train.steps=1000000
wait_for 60 grep -q '"event":"checkpoint","step":4,' shared/metrics.jsonl || fail "no checkpoint after a minute: $(cat first.log)"
expect 1 trivote train --config c.yaml --run shared --resume auto --set train.steps=1000000
says 'shared'
expect 1 ranks 2 train --config c.yaml --run shared --resume auto --set train.steps=1000000
kill -0 "$background" || fail "the first run died: $(cat first.log)"

# A run that died without a word leaves no lock behind.
kill_background
expect 0 trivote train --config c.yaml --run shared --resume auto --set train.steps=1000000 --set train.stop_at=1
says 'resumed'

# SIGTERM: saved, code 75; the rest of the run gives the same bits.
in_background stopped.log "$program" train --config c.yaml --run stopped --set train.steps=300 --set checkpoint.every=0
wait_for 60 grep -q '"step":3,' stopped/metrics.jsonl || fail "no third step after a minute: $(cat stopped.log)"
kill -TERM "$background"
join_background stopped.log
same "$code" 75 "exit code of a stopped run"
says 'stopped on request'
step=$(basename "$(newest stopped)")
[ "$step" != step-000000300 ] || fail "the run was over before it was stopped"
expect 0 ranks 3 train --config c.yaml --run stopped --resume auto --set train.steps=300 --set checkpoint.every=0
same "$(final_field digest)" "$want" "digest of a run stopped at $step"

# The run folder says what was run.
grep -q 'width: *64' whole/config.yaml || fail "whole/config.yaml lacks the resolved config"
expect 0 trivote train --config whole/config.yaml --run again
same "$(final_field digest)" "$want" "digest of the run folder's config"
