#!/usr/bin/env bash
# Wrong arguments and configs: exit code 2, one message that names the place and the cure, and nothing written.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small

expect 0 trivote version
says '^trivote [0-9]+\.[0-9]+\.[0-9]+$'
expect 0 trivote help
says 'train'
for key in model.width data.train train.units vote.dead_zone update.threshold checkpoint.keep run.backend; do
    says "(^|[^a-z_])(${key}|${key#*.})([^a-z_]|$)"
done
expect 0 trivote --help
expect 2 trivote
expect 2 trivote trian
says "did you mean.*train"
expect 2 trivote train
says '--config'
expect 2 trivote train --config c.yaml --runn x
says 'did you mean.*--run'
expect 2 trivote train --config
expect 2 trivote train --config c.yaml --resume
expect 2 trivote generate --checkpoint x --prompt y --bytes many
expect 2 trivote digest
says '--checkpoint'
expect 2 ranks 2 digest --checkpoint x
says 'mpirun'

# wrong FILE-TEXT LINE PATTERN: a config file with that text is refused at that line.
wrong() {
    printf '%b' "$1" >bad.yaml
    expect 2 trivote train --config bad.yaml --run never
    says_once "bad\\.yaml:$2:"
    says "$3"
}
wrong 'model:\n  width: 64\n  heights: 3\n' 3 'heights'
wrong 'model: {width: 64}\ntrain:\n  stpes: 5\n' 3 'stpes.*did you mean.*steps'
wrong 'modle: {width: 64}\n' 1 'modle.*did you mean.*model'
wrong 'model:\n  width: -64\n' 2 'width'
wrong 'model:\n  width: wide\n' 2 'width'
wrong 'update:\n  threshold: 1000\n' 2 'threshold'
wrong 'vote:\n  exchange: carrier\n' 2 'exchange.*(allreduce|sharded)'
wrong 'vote:\n  combine: minority\n' 2 'combine'
wrong 'model: {width: 64\n' '[0-9]+' '.'
wrong 'train:\n  seed: 99999999999999999999999\n' 2 'seed'
expect 2 trivote train --config nowhere.yaml
says 'nowhere\.yaml'

for assignment in model.widht=64 train.steps=-1 train.steps=many vote.levels=4 update.rule=none width=64 train.steps nonsense; do
    expect 2 trivote train --config c.yaml --run never --set "$assignment"
    says "${assignment%%=*}"
done
expect 2 trivote train --config c.yaml --run never --set model.widht=64
says 'did you mean.*width'
# Rules between keys.
expect 2 trivote train --config c.yaml --run never --set model.heads=5
says 'heads'
expect 2 trivote train --config c.yaml --run never --set train.unit_windows=8192
says '131,?072'
expect 2 trivote train --config c.yaml --run never --set run.backend=gpu
says 'backend'
expect 1 trivote train --config c.yaml --run never --set run.backend=cuda
says 'cuda'
# Several ranks without a GPU end at once, with one sentence of them all.
expect 1 ranks 2 train --config c.yaml --run never --set run.backend=cuda
says_once 'no usable NVIDIA GPU|no CUDA backend'

# R that does not divide U: which ones do.
expect 2 ranks 4 train --config c.yaml --run never --set train.units=6
says_once '1, 2, 3'
says '6'

[ ! -e never ] || [ -z "$(find never -name 'step-*')" ] || fail "a refused run left a checkpoint"
