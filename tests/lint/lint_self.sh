#!/usr/bin/env bash
# The lint scripts see what they are meant to see: each fault, planted in a small tree, is reported.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# A clean tree to start from.
fresh() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/src/base "$tree"/kernels "$tree"/comm "$tree"/io
    printf '// A base.\n#ifndef TV_A_H\n#define TV_A_H\n#include <stdint.h>\n#endif\n' >"$tree/src/base/a.h"
    printf '// Ops.\n#include "base/a.h"\n' >"$tree/kernels/k.c"
    printf '// Ranks.\n#include <mpi.h>\n#include "base/a.h"\n' >"$tree/comm/comm_mpi.c"
    printf '// Shards.\n#include <hdf5.h>\n#include "base/a.h"\n' >"$tree/io/shard.c"
    printf '# X\n\n## A tour of the tree\n\n    src/base/    a\n    kernels/     b\n    comm/        c\n    io/          d\n' >"$tree/README.md"
}

# expect clean|fault SCRIPT TEXT
expect() {
    local want=$1 script=$2 what=$3 got=clean out
    out=$(bash "$scripts/lint_$script.sh" "$tree" 2>&1) || got=fault
    if [ "$got" != "$want" ]; then
        printf 'lint_%s, %s: expected %s, got %s:\n%s\n' "$script" "$what" "$want" "$got" "$out"
        failures=$((failures + 1))
    fi
}

fresh
for script in layers files readme operations figure; do
    expect clean "$script" "a clean tree"
done

plant() {
    local script=$1 what=$2 file=$3 text=$4
    fresh
    mkdir -p "$(dirname "$tree/$file")"
    printf '%b' "$text" >>"$tree/$file"
    expect fault "$script" "$what"
}

plant layers "base sees kernels" src/base/b.c '// B.\n#include "kernels/k.h"\n'
plant layers "io sees comm's implementation of ranks" io/b.c '// B.\n#include <mpi.h>\n'
plant layers "kernels see comm" kernels/b.c '// B.\n#include "../comm/comm_mpi.c"\n'
plant layers "hdf5 outside io" comm/b.c '// B.\n#  include <hdf5.h>\n'
plant layers "cuda outside its folder" kernels/b.c '// B.\n#include <cuda_runtime.h>\n'
plant layers "a quoted header that is not there" kernels/b.c '// B.\n#include "nowhere.h"\n'
plant layers "an included source" io/b.c '// B.\n#include "shard.c"\n'
plant layers "an MPI call outside its home" io/b.c '// B.\nint f(void) { return MPI_Init(0, 0); }\n'
plant files "a name used twice" io/k.c '// K.\n'
plant files "a long file" io/b.c "// B.\n$(printf '%0501d' 0 | sed 's/0/\\n/g')"
plant files "a path of one machine" io/b.c '// see "/''home/someone/x"\n'
plant files "a note for later" io/b.c '// TO''DO: all of it\n'
plant files "code switched off" io/b.c '// B.\n#if 0\n#endif\n'
plant files "a header without guard" io/b.h '// B.\nint x;\n'
plant files "a header without its comment" io/b.h '#ifndef TV_B_H\n#define TV_B_H\n#endif\n'
plant files "a trailing blank" io/b.c '// B. \n'
plant figure "a figure that no script makes" docs/model.svg '<desc>Made by docs/figure.py from configs/x.yaml</desc>\n'
plant figure "a figure that names no config" docs/model.svg '<svg/>\n'
plant readme "a folder that the tour leaves out" extra/b.c '// B.\n'
plant readme "a folder that is gone" README.md '    gone/        e\n'
plant readme "a dead link" README.md 'See [this](docs/none.md).\n'

row='| `a.b` | errno | where |'
head='// X.\n#ifndef TV_FAULT_H\n#define TV_FAULT_H\n'
plant operations "a fail point that the page leaves out" src/base/fault.h "$head"'    X(A_B, "a.b", TV_FAULT_ERRNO, "where")\n#endif\n'
mkdir -p "$tree/docs"
printf '%s\n' "$row" >"$tree/docs/operations.md"
expect clean operations "a page that has it"
printf '%s\n' '| `c.d` | | gone |' >>"$tree/docs/operations.md"
expect fault operations "a fail point that is gone"
plant operations "an exit code that the page leaves out" src/base/status.h '    X(HANG, 70, "a")\n'

# The format check, where it can run.
fresh
printf 'BasedOnStyle: LLVM\nSortIncludes: Never\n' >"$tree/.clang-format"
if bash "$scripts/lint_format.sh" "$tree" >/dev/null; then
    plant format "a badly set line" io/b.c '// B.\nint   x ;\n'
elif [ $? -ne 77 ]; then
    expect clean format "a clean tree"
fi

if [ "$failures" -gt 0 ]; then
    exit 1
fi
echo "every planted fault was seen"
