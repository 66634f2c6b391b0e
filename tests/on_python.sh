#!/usr/bin/env bash
# The runtime's tests on another Python, if one is installed here: tests/on_python.sh VERSION BUNDLE
# JetPack 6 has Python 3.10, and no torch to export with, so the bundle comes from outside.
set -euo pipefail
version=$1 bundle=$2
for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
    if "$candidate" -c 'import venv' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "${python:-}" ]; then
    echo "Python $version is not installed here: the runtime was not tested on it"
    exit 0
fi
venv=.venv-$version
if [ ! -e "$venv/installed" ] || [ pyproject.toml -nt "$venv/installed" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet -e '.[run,test]'
    touch "$venv/installed"
fi
BCM_EDGE_TEST_BUNDLE=$bundle "$venv/bin/python" -m pytest -q tests/runtime
