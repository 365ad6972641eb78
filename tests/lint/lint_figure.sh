#!/usr/bin/env bash
# docs/model.svg is what docs/figure.py makes of the config that the figure names, and docs/model.md shows it.
# shellcheck source=tests/lint/lint_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint_common.sh"
figure=docs/model.svg
script=docs/figure.py
if ! command -v python3 >/dev/null; then
    echo "skipped: no python3"
    exit 77
fi

config=
if [ -f "$figure" ]; then
    config=$(sed -nE 's|.*<desc>Made by docs/figure.py from ([^<]+)</desc>.*|\1|p' "$figure")
    if [ ! -f "$config" ] || [ ! -f "$script" ]; then
        complain "$figure: not made by $script from a config of this tree"
    elif ! python3 -I "$script" "$config" | cmp -s - "$figure"; then
        complain "$figure: not what $script makes of $config: python3 $script $config $figure"
    fi
    grep -qF '(model.svg)' docs/model.md 2>/dev/null || complain "docs/model.md does not show $figure"
fi
verdict "figure of ${config:-nothing}"
