#!/usr/bin/env bash
# eval prints bits per byte, the same on any number of ranks; generate is a function of checkpoint, prompt and seed.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

expect 0 ranks 2 train --config c.yaml --run run --set train.steps=40
bpb=$(final_field val_bpb)
checkpoint=$(newest run)
awk -v b="$bpb" 'BEGIN {exit !(b > 0 && b < 8)}' || fail "val_bpb $bpb: nothing was learnt"

expect 0 trivote eval --checkpoint "$checkpoint" --data text.txt --windows 16
says '^bpb=[0-9]+\.[0-9]+'
one=$(grep -oE 'bpb=[0-9.]+' <<<"$out")
expect 0 ranks 3 eval --checkpoint "$checkpoint" --data text.txt --windows 16
same "$(grep -oE 'bpb=[0-9.]+' <<<"$out")" "$one" "eval on one rank and on three"
expect 1 trivote eval --checkpoint "$checkpoint" --data nowhere.txt
says 'nowhere\.txt'
expect 1 trivote eval --checkpoint nowhere --data text.txt
says 'nowhere'

# Random bytes are no text: 8 bits a byte or more.
awk 'BEGIN {x = 5; for (i = 0; i < 8000; i++) {x = (x * 16807) % 2147483647; printf "%c", 33 + x % 90}}' >noise.txt
expect 0 trivote eval --checkpoint "$checkpoint" --data noise.txt
noise=$(sed -nE 's/.*bpb=([0-9.]+).*/\1/p' <<<"$out")
awk -v n="$noise" -v b="$bpb" 'BEGIN {exit !(n > b + 0.5)}' || fail "noise at $noise bits a byte, text at $bpb"

generate() {
    expect 0 trivote generate --checkpoint "$checkpoint" "$@"
}
generate --prompt "the " --bytes 50 --seed 3
first=$out
generate --prompt "the " --bytes 50 --seed 3
same "$out" "$first" "the same seed"
generate --prompt "the " --bytes 50 --seed 4
differ "$out" "$first" "another seed"
generate --prompt "the " --bytes 50 --temperature 0
greedy=$out
generate --prompt "the " --bytes 50 --temperature 0 --seed 9
same "$out" "$greedy" "temperature 0 draws nothing"
generate --prompt "the " --bytes 50 --top-k 1 --temperature 1 --seed 9
same "$out" "$greedy" "top-k 1 is temperature 0"
expect 2 trivote generate --checkpoint "$checkpoint" --prompt "" --bytes 5
generate --prompt "$(head -c 500 text.txt)" --bytes 40
# Standard output is the text and nothing else.
size=$(trivote generate --checkpoint "$checkpoint" --prompt "the " --bytes 50 --seed 3 2>/dev/null | wc -c)
[[ $size -ge 50 && $size -le 60 ]] || fail "50 bytes after a prompt of 4 gave $size bytes of output"
expect 2 trivote generate --checkpoint "$checkpoint" --prompt x --bytes 5 --temperature -1
expect 2 trivote generate --checkpoint "$checkpoint" --prompt x --bytes -5
