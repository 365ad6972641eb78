#!/usr/bin/env bash
# README's tour names every folder of the tree, and every folder it names is there; its links lead somewhere.
# shellcheck source=tests/lint/lint_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint_common.sh"

# The tour: the block between the heading "A tour of the tree" and the next heading; a folder a line, its path first.
tour=$(awk '/^## /{inside = ($0 ~ /tour of the tree/)} inside' README.md | sed -n -E 's|^ +([A-Za-z0-9_./-]+/)( .*)?$|\1|p')
if [ -z "$tour" ]; then
    complain "README.md: no tour of the tree"
fi

while read -r folder; do
    grep -qxF "$folder/" <<<"$tour" || complain "README.md: the tour does not name $folder/"
done < <(project_files | grep / | sed 's|/[^/]*$||' | sort -u)

while read -r folder; do
    [ -z "$folder" ] || [ -d "$folder" ] || complain "README.md: the tour names $folder, which is not there"
done <<<"$tour"

while IFS=: read -r file target; do
    case $target in
        http://* | https://* | '#'*) continue ;;
    esac
    [ -e "$(dirname "$file")/${target%%#*}" ] || complain "$file: a link leads to $target, which is not there"
done < <(project_files | grep '\.md$' | xargs grep -oHE '\]\([^)]+\)' | sed -E 's/:\]\(/:/; s/\)$//')

verdict "$(wc -l <<<"$tour") folders"
