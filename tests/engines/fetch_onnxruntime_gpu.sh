#!/usr/bin/env bash
# The real package onnxruntime-gpu, beside the environment of the tests: tests/engines/fetch_onnxruntime_gpu.sh PYTHON FOLDER
#
# FOLDER has its modules, for PYTHONPATH, and its metadata. It can be imported without a GPU. The download has 256 MB. Where the package is
# not available for this Python or processor, its tests are skipped.
set -euo pipefail
python=$1 folder=$2 version=1.31.1
present() { PYTHONPATH=$folder "$python" -c "import onnxruntime; assert onnxruntime.__version__ == '$version'" 2>/dev/null; }
[ -e "$folder/complete" ] && present && exit 0
rm -rf "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$work" "onnxruntime-gpu==$version" 2>"$work/log"; then
    echo "onnxruntime-gpu is not available for this Python or processor; its tests are skipped: $(tail -n 1 "$work/log")"
    exit 0
fi
mkdir -p "$folder"
"$python" -m zipfile -e "$work"/*.whl "$folder"
touch "$folder/complete"
