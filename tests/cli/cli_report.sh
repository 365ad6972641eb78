#!/usr/bin/env bash
# The report of a run with one restart, a torn line and steps done twice: one well-formed page, nothing from outside, every curve with its
# points; a long run makes no long page; bad input gives one sentence.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v python3 >/dev/null || skip "no python3"
make_small
run='a <b> & "c"' # its name goes into the page

expect 0 ranks 2 train --config c.yaml --run "$run" --set train.stop_at=6
rm -r "$run/step-000000006"
printf '{"event":"step","step":7,"lo' >>"$run/metrics.jsonl"
expect 0 ranks 3 train --config c.yaml --run "$run"
says 'resumed .*step-000000004'
expect 0 trivote report "$run"
says 'report: a <b> & "c"/report.html'
expect 0 python3 "$root/tests/cli/report_page.py" run "$run/report.html" "$run/metrics.jsonl"
echo "$out"
cp "$run/report.html" first.html
expect 0 trivote report "$run" --out other.html
cmp -s first.html other.html || fail "two reports of one run differ"
trivote report "$run" --out - >printed.html
cmp -s first.html printed.html || fail "--out - prints another page"

# Experts, codebooks, the graph of motifs and cells have curves of their own.
cd "$root"
for kind in moe vq memgram graph focus; do
    expect 0 ranks 2 train --config tests/data/invariance-$kind.yaml --run "$work/$kind" --set train.stop_at=9
done
cd "$work"
expect 0 trivote report moe
grep -q 'id="experts"' moe/report.html || fail "no chart of the experts"
expect 0 trivote report vq
for id in rows entropy; do
    grep -q "id=\"$id\"" vq/report.html || fail "no chart $id"
done

# What parts tell of themselves, in small charts; figures with a chart of their own are not shown twice.
for run in memgram graph focus; do
    expect 0 trivote report $run
done
for run in moe vq memgram graph; do
    expect 0 python3 "$root/tests/cli/report_page.py" parts "$run/report.html" "$run/metrics.jsonl"
    echo "$out"
done
if grep -q '<h2>Parts' "first.html"; then fail "a section of parts that tell nothing"; fi
for id in edges scores; do
    grep -q "id=\"$id\"" graph/report.html || fail "no chart $id"
done
grep -q 'id="gates"' focus/report.html || fail "no chart of the gates"

# 30,000 steps, lines that only have a loss among them.
mkdir long
python3 "$root/tests/cli/report_page.py" make long/metrics.jsonl
expect 0 trivote report long
expect 0 python3 "$root/tests/cli/report_page.py" long long/report.html
echo "$out"

# Refused in one sentence each.
mkdir bad
expect 1 trivote report nowhere
says_once 'nowhere/metrics.jsonl: No such file or directory; give the folder of a run'
: >bad/metrics.jsonl
expect 1 trivote report bad
says_once 'holds no step yet'
printf '\377\000PNG {}\n[1, 2]\n"event"\n' >bad/metrics.jsonl
expect 1 trivote report bad
says_once 'bad/metrics.jsonl holds no step; line 1 is no JSON object: '
printf '{"event":"step","step":1,"loss":2}\n{"event":"step","step":2,"loss":"x"}\n' >bad/metrics.jsonl
expect 1 trivote report bad
says_once "bad/metrics.jsonl:2: 'loss' is no number"
printf '{"event":"step","step":-4,"loss":2}\n' >bad/metrics.jsonl
expect 1 trivote report bad
says_once "bad/metrics.jsonl:1: 'step' is no whole number from 0"
printf '{"event":"step","step":1,"loss":2}' >bad/metrics.jsonl
expect 0 trivote report bad
expect 1 trivote report bad --out nowhere/page.html
says_once 'nowhere/page.html'
expect 2 trivote report
says_once 'report takes one run folder, not 0'
expect 2 trivote report bad long
says_once 'report takes one run folder, not 2'
expect 2 ranks 2 report bad
says 'runs as one process'
