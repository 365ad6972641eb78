#!/usr/bin/env bash
# SIGKILL at any moment, a save on every step: what is published stays valid, and going on leads to the same end. A full disk costs the
# checkpoint, not what was there.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

long=(--config c.yaml --set train.steps=120 --set checkpoint.every=1 --set checkpoint.keep=2 --set train.eval_every=0)
expect 0 trivote train "${long[@]}" --run whole
want=$(final_field digest)

moved_on() {
    [ "$(newest killed)" != "$before" ] || ! kill -0 "$background"
}

# Seconds after the start, or (+) after the next checkpoint, however slow the build: three restarts in a row that make none are given up.
kills=0
for delay in 0.15 +0.2 0.22 +0.25 0.18; do
    before=$(newest killed 2>/dev/null || true)
    in_background killed.log "$program" train "${long[@]}" --run killed --resume auto
    [[ $delay != +* ]] || wait_for 60 moved_on || fail "no new checkpoint in 60 s"
    sleep "${delay#+}"
    kill -0 "$background" 2>/dev/null && kills=$((kills + 1))
    kill_background
    for checkpoint in killed/step-?????????; do
        [ -d "$checkpoint" ] || continue
        expect 0 trivote verify --checkpoint "$checkpoint"
    done
done
expect 0 trivote train "${long[@]}" --run killed --resume auto
same "$(final_field digest)" "$want" "digest after $kills kills"
[ -z "$(find killed -name '*.tmp-*')" ] || fail "left-overs of dead saves: $(find killed -name '*.tmp-*')"

# No room: files may grow to 24 KiB, a shard needs more. Periodic saves are warnings, the last one is the run's failure.
expect 0 trivote train --config c.yaml --run full --set train.stop_at=4
kept=$(trivote digest --checkpoint full/step-000000004)
limited() {
    (
        ulimit -f 24
        trap '' XFSZ
        exec "$program" train --config c.yaml --run full --resume auto
    )
}
expect 1 limited
says 'step-0+8|space|large|write|disk'
same "$(find full -maxdepth 1 -name 'step-*')" full/step-000000004 "checkpoints after a failed save"
same "$(trivote digest --checkpoint full/step-000000004)" "$kept" "digest of the checkpoint that was there"
expect 0 trivote train --config c.yaml --run full --resume auto
expect 0 trivote train --config c.yaml --run unlimited
whole=$(final_field digest)
same "$(trivote digest --checkpoint full/step-000000008)" "$whole" "digest after a failed save"
echo "$kills kills"
