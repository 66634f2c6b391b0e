#!/usr/bin/env bash
# Run the tests of the runtime on another Python: tests/on_python.sh VERSION lowest|newest BUNDLE
# Its dependencies have the lowest versions that pyproject.toml allows, or the newest. Nothing is tested if that
# Python is not installed. JetPack 6 has Python 3.10 and no torch to export with, so BUNDLE must exist.
set -euo pipefail
version=$1 which=$2 bundle=$3
python=$(tests/find_python.sh "$version") || {
    echo "Python $version is not installed here: not tested with the $which versions"
    exit 0
}
venv=.venv-$version-$which
if [ ! -e "$venv/installed" ] || [ pyproject.toml -nt "$venv/installed" ]; then
    "$python" -m venv --clear "$venv"
    pip=("$venv/bin/python" -m pip install --quiet)
    : > "$venv/pins.txt"
    if [ "$which" = lowest ]; then
        for pin in $("$venv/bin/python" tests/lowest.py); do
            if "${pip[@]}" --only-binary=:all: "$pin" 2> "$venv/pip.txt"; then
                echo "$pin" >> "$venv/pins.txt"
            elif grep -q "No matching distribution" "$venv/pip.txt"; then
                echo "$pin has no wheel for Python $version here: another version is tested"
            else
                cat "$venv/pip.txt"
                exit 1
            fi
        done
    fi
    "${pip[@]}" --constraint "$venv/pins.txt" -e '.[run,test]'
    touch "$venv/installed"
fi
versions=$("$venv/bin/python" -m pip freeze | grep -iE '^(numpy|click|rich|pillow|onnxruntime)==' | paste -sd ' ')
echo "Python $version with $versions"
# These test files need no torch.
names=(arrays command_line images large_numbers linked_bundle log output_places paths streams value_ranges)
cases=$(printf "tests/cases/test_%s.py " "${names[@]}")
BCM_EDGE_TEST_BUNDLE=$bundle "$venv/bin/python" -m pytest -q tests/runtime $cases
