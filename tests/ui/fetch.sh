#!/usr/bin/env bash
# Fetch axe-core, which checks the accessibility of a page in a browser: tests/ui/fetch.sh FOLDER
#
#   FOLDER/axe.min.js
#
# If it is not available, the tests that need it are skipped by name.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ ! -e "$folder/axe.min.js" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! command -v npm >/dev/null; then
    echo "the accessibility of pages will not be tested: npm is not installed"
elif ! npm install --prefix "$work" --ignore-scripts --silent axe-core@4.14.1 >"$work/log" 2>&1; then
    echo "the accessibility of pages will not be tested: npm cannot install axe-core: $(tail -n 1 "$work/log")"
else
    mv "$work/node_modules/axe-core/axe.min.js" "$folder/"
fi
