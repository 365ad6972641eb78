#!/usr/bin/env bash
# Files: unique names, at most 500 lines, no tabs or trailing blanks in sources, no paths of one machine, no notes to be done later.
# shellcheck source=tests/lint/lint_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint_common.sh"

code_files() {
    project_files | grep -E '\.(c|h|cu|cuh|sh|py|cmake)$|(^|/)(bootstrap|CMakeLists\.txt|\.ci/[a-z]+)$' || true
}

text_files() {
    project_files | grep -E '\.(c|h|cu|cuh|sh|py|cmake|md|ya?ml|json|txt|supp|in|1)$|(^|/)(bootstrap|\.ci/[a-z]+|\.clang-format)$' || true
}

# Unique among files that people open by name. Every folder may have its CMakeLists.txt.
while read -r name; do
    complain "name used twice: $(project_files | grep -E "(^|/)$name\$" | tr '\n' ' ')"
done < <(project_files | grep -E '\.(c|h|cu|cuh|sh|py|cmake|md|ya?ml)$' | sed 's|.*/||' | sort | uniq -d)

while read -r file; do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 500 ]; then
        complain "$file: $lines lines, more than 500"
    fi
    if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then
        complain "$file: no newline at its end"
    fi
done < <(code_files)

report() {
    local what=$1 hit
    while read -r hit; do
        complain "$hit: $what"
    done
}

report "a trailing blank or a tab" < <(code_files | xargs grep -nE "[[:blank:]]\$|$(printf '\t')" /dev/null | cut -d: -f1,2)
report "a path of one machine" < <(text_files | grep -v '^LICENSE' |
    xargs grep -nE '(^|[^A-Za-z0-9_.)}$*-])/(work|root|home|mnt|Users|scratch|opt)/' /dev/null | cut -d: -f1-3)
later="TO""DO|FIX""ME|X""XX"
report "a note for later" < <(text_files | xargs grep -nwE "$later" /dev/null | cut -d: -f1,2)
report "code switched off" < <(source_files | xargs grep -nE '^[[:blank:]]*#[[:blank:]]*if[[:blank:]]+0' /dev/null | cut -d: -f1,2)

# Every header has its guard, and starts with a comment that says what it is for.
while read -r file; do
    head -n 1 "$file" | grep -qE '^(//|/\*)' || complain "$file: does not start with a comment that says what it is for"
    grep -qE '^#ifndef TV_[A-Z0-9_]+_(H|CUH)$' "$file" || complain "$file: no include guard"
done < <(source_files | grep -E '\.(h|cuh)$')

verdict "$(code_files | wc -l) files of code, $(text_files | wc -l) of text"
