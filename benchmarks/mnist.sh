#!/bin/sh
# Make the MNIST model in the package, its report, the figures of its page and its picture: `make mnist`. Run
# from the root of a checkout, in an environment with the extras `evaluate` and `export`:
#   benchmarks/mnist.sh mnist.safetensors mnist_train.npz mnist_test.npz [denoiser.safetensors]
# With a denoiser of the same data, the report compares the model with it.
set -eu
for file in "$@"; do [ -f "$file" ] || { echo "mnist.sh: no such file: '$file'" >&2; exit 2; }; done
[ $# -ge 3 ] || { echo "usage: mnist.sh CHECKPOINT TRAIN.npz TEST.npz [DENOISER]" >&2; exit 2; }
work=build/mnist
python -m bcm_edge.evaluation.ship mnist "$1" --data "$2" -o $work
python -m bcm_edge evaluate $work/mnist.bundle --data "$2" --test "$3" ${4:+--baseline "$4"} --samples 1000 \
    --reconstructed 200 -o docs/report-mnist.html --force --json > $work/report.json
python -m bcm_edge.evaluation.figures mnist $work
python -m bcm_edge generate mnist -n 100 --label all -o docs/mnist.png --force
