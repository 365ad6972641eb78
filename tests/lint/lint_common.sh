# shellcheck shell=bash
# Sourced by the lint scripts: `root` is the tree to check, complain counts, verdict ends the script.
set -euo pipefail
root=${1:?usage: lint_NAME.sh ROOT}
cd "$root"
complaints=0

complain() {
    complaints=$((complaints + 1))
    [ "$complaints" -gt 50 ] || echo "$*"
}

verdict() {
    if [ "$complaints" -gt 0 ]; then
        echo "$complaints complaints"
        exit 1
    fi
    echo "clean: $*"
}

# Files of the project, one a line: everything but build folders, runs, the demo's text and hidden folders, of which .ci alone belongs to it.
project_files() {
    find . -type d \( -name '.?*' ! -name .ci -o -name build -o -name runs -o -name __pycache__ \) -prune -o -type f \
        ! -name '*.o' ! -name compile_commands.json ! -path ./bible.txt ! -path ./bible.txt.tmp -print | sed 's|^\./||' | sort
}

source_files() {
    project_files | grep -E '\.(c|h|cu|cuh)$' || true
}
