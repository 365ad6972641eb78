# shellcheck shell=bash
# Sourced by the lint scripts: `root` is the tree to check, complain counts, verdict ends the script.
set -euo pipefail
root=${1:?usage: lint_NAME.sh ROOT}
cd "$root"
complaints=0

complain() {
    echo "$*"
    complaints=$((complaints + 1))
}

verdict() {
    if [ "$complaints" -gt 0 ]; then
        echo "$complaints complaints"
        exit 1
    fi
    echo "clean: $*"
}

# Files of the project, one a line: everything but what git ignores (build folders, runs, the demo's text) and the caches of tools.
project_files() {
    find . -type d \( -name .git -o -name build -o -name runs -o -name __pycache__ -o -name .cache \) -prune -o -type f \
        ! -name '*.o' ! -name compile_commands.json ! -path ./bible.txt ! -path ./bible.txt.tmp -print | sed 's|^\./||' | sort
}

source_files() {
    project_files | grep -E '\.(c|h|cu|cuh)$' || true
}
