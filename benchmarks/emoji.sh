#!/bin/sh
# Make the emoji model in the package, its report, its page and its pictures: `make emoji`. Run from the root of
# a checkout, in an environment with the extras `evaluate`, `export` and `test`, and a Chromium:
#   benchmarks/emoji.sh emoji.safetensors emoji64.npz [denoiser.safetensors]
# With a denoiser of the same data, the report compares the model with it.
set -eu
for file in "$@"; do [ -f "$file" ] || { echo "emoji.sh: no such file: '$file'" >&2; exit 2; }; done
[ $# -ge 2 ] || { echo "usage: emoji.sh CHECKPOINT emoji64.npz [DENOISER]" >&2; exit 2; }
work=build/emoji
data="--data $work/emoji.npz --test $work/emoji-test.npz"
python -m bcm_edge.evaluation.emoji_data "$2" -o $work
python -m bcm_edge.evaluation.ship emoji "$1" --data $work/emoji.npz -o $work
python -m bcm_edge evaluate $work/emoji.bundle $data ${3:+--baseline "$3"} \
    -o docs/report-emoji.html --force --json > $work/report.json
python -m bcm_edge.evaluation.memorised $work/emoji.bundle $data \
    -o docs/emoji-nearest.png > $work/nearest.json
python -m bcm_edge.evaluation.figures emoji $work
python benchmarks/emoji_pictures.py -o docs/emoji.png
python -m bcm_edge demo -o $work/demo --force
cp $work/demo/generated.png $work/demo/reconstructed.png docs/
cp $work/demo/restyled.png docs/tasks/
python benchmarks/notebook.py
python benchmarks/ui_pictures.py emoji -o docs/ui
