#!/usr/bin/env bash
# docs/operations.md has a row for each fail point, with the actions and the place of src/base/fault.h, and for each exit code of
# src/base/status.h; no row for a point that is not there.
# shellcheck source=tests/lint/lint_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint_common.sh"
page=docs/operations.md
list=src/base/fault.h

# The first three cells of each point's row, as the list has them.
point_rows() {
    sed -nE 's/^ *X\([A-Z0-9_]+, "([^"]+)", ([^,]+), "([^"]+)"\).*/\1;\2;\3/p' "$list" | while IFS=';' read -r name actions place; do
        words=$(sed -e 's/TV_FAULT_ERRNO/errno/; s/TV_FAULT_FLIP/flip-bit/; s/TV_FAULT_NAN/nan/; s/ | /, /g; s/^0$//' <<<"$actions")
        echo "| \`$name\` |${words:+ $words} | $place |"
    done
}

points=0
if [ -f "$list" ]; then
    while read -r row; do
        points=$((points + 1))
        grep -qF -- "$row" "$page" || complain "$page: no row that begins with: $row"
    done < <(point_rows)
    [ "$points" -gt 0 ] || complain "$list: no fail point found"
    while read -r name; do
        grep -qF "\"$name\"" "$list" || complain "$page: $name is no fail point of $list"
    done < <(sed -nE 's/^\| `([a-z_]+\.[a-z_]+)` \|.*/\1/p' "$page")
fi

if [ -f src/base/status.h ]; then
    while read -r code; do
        grep -q "^| $code |" "$page" || complain "$page: no row for exit code $code"
    done < <(sed -nE 's/^ *X\([A-Z]+, ([0-9]+), .*/\1/p' src/base/status.h | sort -nu)
fi
verdict "$points fail points"
