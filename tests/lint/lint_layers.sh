#!/usr/bin/env bash
# Every #include obeys the laws of docs/architecture.md: who may see which layer, and where foreign headers live.
# shellcheck source=tests/lint/lint_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint_common.sh"

# The layer of a file: its folder in the table below.
layer_of() {
    case $1 in
        src/base/*) echo base ;;
        src/model/*) echo model ;;
        src/train/*) echo train ;;
        src/*) echo program ;;
        kernels/ref/*) echo kernels_ref ;;
        kernels/cpu/*) echo kernels_cpu ;;
        kernels/cuda/*) echo kernels_cuda ;;
        kernels/*.c) echo kernels_list ;;
        kernels/*) echo kernels ;;
        comm/*) echo comm ;;
        io/*) echo io ;;
        tests/*) echo tests ;;
        *) echo none ;;
    esac
}

# Layers that a layer may include. `kernels` is the contract, kernels_ref and the like are the backends, and only kernels_list, the sources
# beside the contract, knows them by name.
allowed_layers() {
    case $1 in
        base) echo base ;;
        kernels) echo base kernels ;;
        kernels_list) echo base kernels kernels_ref kernels_cpu kernels_cuda ;;
        kernels_ref) echo base kernels kernels_ref ;;
        kernels_cpu) echo base kernels kernels_ref kernels_cpu ;;
        kernels_cuda) echo base kernels kernels_ref kernels_cuda ;;
        comm) echo base comm ;;
        io) echo base comm io ;;
        model) echo base kernels comm model ;;
        train) echo base kernels comm io model train ;;
        program) echo base kernels kernels_ref kernels_cpu kernels_cuda comm io model train program ;;
        tests) echo base kernels kernels_ref kernels_cpu kernels_cuda comm io model train program tests ;;
        *) echo ;;
    esac
}

# Homes of foreign headers: files matching the pattern may include them. Tests of a home may, to build their oracles.
foreign_home() {
    case $1 in
        mpi.h) echo '^(comm/comm_mpi[._a-z]*|tests/comm/.*)$' ;;
        hdf5.h | H5*.h) echo '^(io/.*|tests/io/.*|tests/fuzz/.*)$' ;;
        nccl.h) echo '^comm/comm_nccl\.c$' ;;
        cuda*.h | cub/* | cublas*.h | nvml.h | nvtx*.h) echo '^(kernels/cuda/.*|comm/comm_nccl\.c)$' ;;
        yaml.h | cyaml/*) echo '^src/base/.*$' ;;
        xxhash.h) echo '^(src/base/.*|tests/.*)$' ;;
        immintrin.h | *intrin.h | omp.h) echo '^(kernels/cpu/.*|tests/kernels/.*)$' ;;
        cmocka.h) echo '^tests/.*$' ;;
        cblas.h) echo '^src/cmd_bench.*\.c$' ;;
        *) echo . ;;
    esac
}

# Prints the project file that an include names, looked up as the compiler does: beside the file, in the root, in src.
resolve() {
    local here=$1 name=$2 place
    for place in "$here" . src; do
        if [ -f "$place/$name" ]; then
            realpath --relative-to=. "$place/$name"
            return
        fi
    done
}

check_quoted() {
    local file=$1 line=$2 name=$3 target layer
    case $name in
        *.c | *.cu) complain "$file:$line: includes a source, $name" ;;
    esac
    target=$(resolve "$(dirname "$file")" "$name")
    if [ -z "$target" ]; then
        complain "$file:$line: \"$name\" is not in the tree (foreign headers are included with <>)"
        return
    fi
    layer=$(layer_of "$target")
    case " $(allowed_layers "$(layer_of "$file")") " in
        *" $layer "*) ;;
        *) complain "$file:$line: layer $(layer_of "$file") may not see $layer ($target)" ;;
    esac
}

check_foreign() {
    local file=$1 line=$2 name=$3 home
    home=$(foreign_home "$name")
    if ! [[ $file =~ $home ]]; then
        complain "$file:$line: <$name> has its one home in $home"
    fi
}

count=0
while IFS=: read -r file line kind name; do
    count=$((count + 1))
    if [ "$kind" = quoted ]; then
        check_quoted "$file" "$line" "$name"
    else
        check_foreign "$file" "$line" "$name"
    fi
done < <(source_files | while read -r file; do
    sed -n -E -e '/^[ \t]*#[ \t]*include[ \t]*"/{=;s/^[^"]*"([^"]*)".*/quoted:\1/p;}' \
        -e '/^[ \t]*#[ \t]*include[ \t]*</{=;s/^[^<]*<([^>]*)>.*/foreign:\1/p;}' "$file" | paste -d: - - | sed "s|^|$file:|"
done)

# No call of MPI or HDF5 outside their homes either: a hand-written declaration would pass the check above.
foreign_calls() {
    local home=$1 pattern=$2
    source_files | grep -vE "$home" | xargs grep -nE "$pattern" /dev/null | cut -d: -f1,2 || true
}
while read -r hit; do
    complain "$hit: a call of MPI or HDF5 outside its home"
done < <(
    foreign_calls '^(comm/comm_mpi|tests/comm/)' '\bMPI_[A-Z][A-Za-z_]*\('
    foreign_calls '^(io/|tests/io/|tests/fuzz/)' '\b(hid_t\b|H5[A-Z][a-z]+\()'
)

if [ "$count" -eq 0 ]; then
    complain "no include found: is $root the root of the tree?"
fi
verdict "$count includes"
