#!/usr/bin/env bash
# Install the wheel with its extra [run] on another Python, and use it: tests/wheel_on_python.sh VERSION FOLDER
# FOLDER contains the wheel. Nothing is tested if that Python is not installed.
set -euo pipefail
version=$1 folder=$2
python=$(tests/find_python.sh "$version") || { echo "Python $version is not installed here: not tested"; exit 0; }
wheel=$(realpath "$folder"/bcm_edge-*.whl)
venv=.venv-$version-wheel
[ -e "$venv" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet "$wheel[run]"
"$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall "$wheel"
"$venv/bin/python" tests/smoke.py
