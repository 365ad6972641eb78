#!/usr/bin/env bash
# Sources are as clang-format 14 leaves them (other versions differ in small things).
# shellcheck source=tests/lint/lint_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint_common.sh"

program=
for candidate in clang-format-14 clang-format; do
    if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q 'version 14\.'; then
        program=$candidate
        break
    fi
done
if [ -z "$program" ]; then
    echo "skipped: clang-format 14 is not installed"
    exit 77
fi

while read -r file; do
    if ! "$program" "$file" | cmp -s - "$file"; then
        complain "$file: differs; $program -i $file puts it right. First difference:"
        "$program" "$file" | diff "$file" - | head -n 4 || true
    fi
done < <(source_files)

verdict "$(source_files | wc -l) sources"
