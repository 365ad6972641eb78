#!/usr/bin/env bash
# Every benchmark that is quick here runs and prints its table; those of one process refuse more, and a wrong name or config is told.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_small
export TMPDIR=$work

expect 2 trivote bench
says 'all, gemm, decode, quantise, attention, ops, exchange, watch, moe, codebook, memgram, graph, focus, step, memory, save'
expect 2 trivote bench stpe
says "did you mean 'step'"
expect 2 trivote bench step --config nowhere.yaml
says 'nowhere\.yaml'
expect 2 trivote bench step --set model.widht=64
says 'did you mean.*width'
expect 2 ranks 2 bench decode
says_once 'runs as one process'

expect 0 trivote bench memgram --backend cpu
says_once '^n-grams of 4096 tokens, 4 orders, 1000000 rows of 64'
expect 0 trivote bench graph --backend cpu
says_once '^graph of 1024 motifs of 64, 8 edges each from 2048; 4096 tokens'
expect 0 trivote bench focus --backend cpu
says_once '^cells of width 64 over segments of 16, D 128, 32 windows of 128'
says_once '^  part, 4096 tokens in 8 segments a window: forward [0-9.]+ ms, with backward [0-9.]+ ms'
expect 0 trivote bench codebook --backend cpu
says_once '^codebook of 1000000 x 64, 512 buckets'
says_once '^  search, 8 probes +4096 tokens'
expect 0 ranks 2 bench moe codebook --backend cpu
for what in 'rows of experts' 'queries and answers of a codebook'; do
    says_once "^$what between 2 ranks of cpu"
done
says '  own, with its counts +[0-9.]+ ms +[0-9.]+ GB/s +[0-9]+%'
expect 0 trivote bench decode quantise attention
for table in decode quantise attention; do
    says_once "^$table of "
done
says_once 'w8 and its transpose +[0-9.]+ +[0-9.]+ +[0-9]+%'
says_once 'rows in two digits +[0-9.]+'
says_once 'backward: 5 products +[0-9.]+ +[0-9.]+ +[0-9]+% +[0-9.]+'

expect 0 trivote bench step memory --config c.yaml
says_once '^  step +[0-9.]+ ms 100.0%'
says_once 'bytes/s'
says_once '^  planned, all +[0-9]+'
# Planned by the table is what the audit counts.
state=$(grep -oE 'planned: state +[0-9]+' <<<"$out" | grep -oE '[0-9]+$')
expect 0 trivote audit --config c.yaml --json
says "\"state\": $state,"
expect 0 ranks 2 bench step --config c.yaml --set vote.bucket_bytes=1000
says_once 'bytes a step in [0-9]+ buckets, vote.bucket_bytes 1000'
[ -z "$(find "$work" -name 'trivote-bench-*')" ] || fail "a benchmark left its text behind"

expect 0 ranks 2 bench watch --backend cpu
says 'being watched, 2 ranks'
says 'guard of a step +[0-9]+'
