"""Measure how each precision changes the samples and reconstructions of the digits model, with equal seeds.

    bcm-edge export -o digits.bundle --precision fp32,fp16,bf16,int8,int8-fp16,fp8 --data digits
    python benchmarks/precision_quality.py digits.bundle -o benchmarks/results/precision-quality.json

Generation is the Fréchet ratio of each schedule that generates, reconstruction the error of each inversion,
on the test digits. Each is compared with fp32. Precisions of 16 bits, and those for GPUs, are computed with
every rounding made explicit. The table has the largest change of any schedule.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from result_files import add_output, origin, write_figures

import bcm_edge
from bcm_edge.evaluation.classifier import train_classifier
from bcm_edge.evaluation.data import held_out
from bcm_edge.evaluation.quality import Judge
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle

SEED = 2_000_000  # first seed of all samples
ON_ONNXRUNTIME = ("fp32", "int8")  # all others are computed with every rounding that they specify


def main() -> None:
    """Measure each precision of the bundle, and print a table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("bundle", type=Path, help="of the digits model, with fp32 among its precisions")
    add_output(parser)
    arguments = parser.parse_args()
    measured_by, bundle = origin(), open_bundle(arguments.bundle)
    train, test = held_out("digits", bundle.manifest.model, "test")
    judge = Judge(train_classifier(train), train, test)
    scores = {precision: scores_of(bundle, precision, judge) for precision in bundle.precisions}
    print(f"{'':9}{'generation changes by at most':>32}{'reconstruction changes by at most':>36}")
    figures = {}
    for precision, own in scores.items():
        changes = {name: abs(own[name] / scores["fp32"][name] - 1) for name in own}
        figures[precision] = {"scores": own, "changes": changes}
        for kind in (False, True):
            of_kind = [changes[name] for name in own if bundle.schedule(name).from_image is kind]
            figures[precision]["reconstruction" if kind else "generation"] = max(of_kind)
        largest = figures[precision]["generation"], figures[precision]["reconstruction"]
        print(f"{precision:9}{largest[0]:32.2%}{largest[1]:36.2%}")
    write_figures(arguments.output, measured_by, figures)


def scores_of(bundle: Bundle, precision: str, judge: Judge) -> dict[str, float]:
    """Return schedule → Fréchet ratio or reconstruction error, on the backend of this precision."""
    backend = "onnxruntime" if precision in ON_ONNXRUNTIME else "typed"
    with bcm_edge.load(bundle.path, backend, precision=precision) as bcm:
        return {name: judge.score(bcm.schedule(name), bcm.backend, SEED) for name in bcm.schedules}


if __name__ == "__main__":
    main()
