#!/usr/bin/env bash
# The GPU gives what the CPU gives: digest, bits per byte, text. Either goes on from the other's checkpoint.
export TV_CLI_GPU=1
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cpu() {
    CUDA_VISIBLE_DEVICES='' "$program" "$@"
}

# each_its_own N GPU ARGUMENT...: N ranks, of which each sees the GPU that the second argument names to it, as under Slurm.
each_its_own() {
    local count=$1 gpu=$2
    shift 2
    "$mpiexec" -n "$count" bash -c "CUDA_VISIBLE_DEVICES=$gpu exec \"\$@\"" bash "$program" "$@"
}

make_small
code=0
out=$(trivote train --config c.yaml --run probe --set run.backend=cuda --set train.steps=1 2>&1) || code=$?
if [ "$code" -eq 1 ] && grep -q 'no usable NVIDIA GPU' <<<"$out"; then
    skip "no NVIDIA GPU ($(grep -o 'no usable NVIDIA GPU.*' <<<"$out"))"
fi
[ "$code" -eq 0 ] || fail "exit code $code on the GPU"

cd "$root"
expect 0 cpu train --config tests/data/invariance.yaml --run "$work/cpu" --set run.backend=cpu
want=$(final_field digest)
bpb=$(final_field val_bpb)
for option in run.backend=cuda run.backend=auto; do
    expect 0 trivote train --config tests/data/invariance.yaml --run "$work/$option" --set "$option"
    says 'backend cuda'
    same "$(final_field digest)" "$want" "digest with $option and on the CPU"
    same "$(final_field val_bpb)" "$bpb" "held-out loss with $option and on the CPU"
done

# Half the steps on one, the rest on the other.
for first in cpu cuda; do
    second=$([ "$first" = cpu ] && echo cuda || echo cpu)
    run=$work/from_$first
    expect 0 trivote train --config tests/data/invariance.yaml --run "$run" --set run.backend=$first --set train.stop_at=12
    expect 0 trivote train --config tests/data/invariance.yaml --run "$run" --set run.backend="$second"
    says 'resumed .*step 12'
    same "$(final_field digest)" "$want" "digest of 12 steps on $first and the rest on $second"
done

# Two ranks: a GPU for each, or the CPU for both; never a GPU for two.
expect 0 ranks 2 train --config tests/data/invariance.yaml --run "$work/two" --set run.backend=auto
same "$(final_field digest)" "$want" "digest of two ranks"
if [ "$(nvidia-smi -L | grep -c '^GPU')" -eq 1 ]; then
    says 'auto takes the CPU'
    expect 1 ranks 2 train --config tests/data/invariance.yaml --run "$work/shared" --set run.backend=cuda
    says_once 'ranks 0 and 1 would share one GPU'
    expect 1 each_its_own 2 0 train --config tests/data/invariance.yaml --run "$work/shared" --set run.backend=cuda
    says_once 'ranks 0 and 1 would share one GPU'
else
    expect 0 each_its_own 2 '$OMPI_COMM_WORLD_LOCAL_RANK' train --config tests/data/invariance.yaml --run "$work/own" --set run.backend=cuda
    same "$(final_field digest)" "$want" "digest of two ranks that see one GPU each"
fi
cd "$work"

# A model with odd sizes, two-digit votes of several levels and a latent: what the small config leaves out.
options=(--set model.width=60 --set model.heads=3 --set model.latent_kv=20 --set model.ffn=91 --set vote.levels=7)
expect 0 cpu train --config c.yaml --run odd_cpu "${options[@]}"
want=$(final_field digest)
expect 0 trivote train --config c.yaml --run odd_cuda --set run.backend=cuda "${options[@]}"
same "$(final_field digest)" "$want" "digest of the odd model"

checkpoint=$(newest odd_cuda)
expect 0 cpu eval --checkpoint "$checkpoint" --data text.txt --windows 16
want=$out
expect 0 trivote eval --checkpoint "$checkpoint" --data text.txt --windows 16
same "$(grep -o 'bpb=.*' <<<"$out")" "$(grep -o 'bpb=.*' <<<"$want")" "eval on the GPU and on the CPU"
text_of() {
    "$@" generate --checkpoint "$checkpoint" --prompt "the " --bytes 80 --seed 3 2>/dev/null
}
text=$(text_of trivote)
[ "${#text}" -ge 80 ] || fail "${#text} characters of text, not 80"
same "$text" "$(text_of cpu)" "text on the GPU and on the CPU"

# Codebooks: the bits of the CPU, and what an oracle says of their search.
cd "$root"
expect 0 cpu train --config tests/data/invariance-vq.yaml --run "$work/vq_cpu" --set run.backend=cpu
want=$(final_field digest)
expect 0 trivote train --config tests/data/invariance-vq.yaml --run "$work/vq_cuda" --set run.backend=cuda
same "$(final_field digest)" "$want" "digest of a model with codebooks"
checkpoint=$(newest "$work/vq_cuda")
recall=(eval --checkpoint "$checkpoint" --data tests/data/invariance.txt --windows 21 --codebook-recall)
expect 0 cpu "${recall[@]}"
want=$(grep -oE '(bpb|recall_[0-9]+|excess_[0-9]+)=[0-9.]+' <<<"$out")
expect 0 trivote "${recall[@]}"
same "$(grep -oE '(bpb|recall_[0-9]+|excess_[0-9]+)=[0-9.]+' <<<"$out")" "$want" "recall on the GPU and on the CPU"
