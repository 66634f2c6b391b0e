#!/usr/bin/env bash
# Print the path of a Python that is installed here: tests/find_python.sh VERSION. Exit code 1 if there is none.
version=$1
for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
    if "$candidate" -c 'import venv' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    fi
done
exit 1
