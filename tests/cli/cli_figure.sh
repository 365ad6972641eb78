#!/usr/bin/env bash
# docs/figure.py counts the weights of every part as the audit does, draws well-formed SVG, and refuses what it does not understand.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v python3 >/dev/null || skip "no python3"
cat >check.py <<'EOF2'
import json
import sys
import xml.etree.ElementTree as tree

page = tree.parse(sys.argv[1]).getroot()
parts = {g.attrib["data-part"]: int(g.attrib["data-weights"]) for g in page.iter("{http://www.w3.org/2000/svg}g")}
audit = json.load(open(sys.argv[2]))
assert parts == audit["parts"], (parts, audit["parts"])
words = [t.text for t in page.iter("{http://www.w3.org/2000/svg}text")]
assert f"{audit['weights']:,}" in words, words
assert all(f"{weights:,}" in words for weights in parts.values()), words
EOF2

cd "$root"
count=0
for config in configs/*.yaml tests/data/*.yaml; do
    trivote audit --config "$config" --json >"$work/audit.json"
    expect 0 python3 -I docs/figure.py "$config" "$work/figure.svg"
    expect 0 python3 "$work/check.py" "$work/figure.svg" "$work/audit.json"
    count=$((count + 1))
done
echo "$count configs"
cd "$work"

figure() { python3 -I "$root/docs/figure.py" "$@"; }
printf 'model: # sizes\n  width: 64 # D\n  latent_kv: 16\n  sequencer: false\nmoe:\n  experts: 3\n  shared: 8\n' >c.yaml
trivote audit --config c.yaml --json >audit.json
expect 0 figure c.yaml figure.svg
expect 0 python3 check.py figure.svg audit.json
expect 1 figure nowhere.yaml
says "figure.py: cannot read nowhere.yaml: No such file"
printf 'model:\n  widht: 64\n' >bad.yaml
expect 1 figure bad.yaml
says "bad.yaml:2: key 'model.widht' is not in docs/config.md"
printf 'modle:\n  width: 64\n' >bad.yaml
expect 1 figure bad.yaml
says "bad.yaml:1: section 'modle' is not in docs/config.md"
printf 'model:\n  - 64\n' >bad.yaml
expect 1 figure bad.yaml
says "bad.yaml:2: no section and no key"
expect 1 figure
says "usage: figure.py CONFIG"
