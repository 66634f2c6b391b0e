"""The check of a repository finds changed files and wrong configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import with_engine
from repositories import written

from bcm_edge.errors import CheckFailed
from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.lint import lint
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.export.triton.repository import write_repository
from bcm_edge.runtime.storage.bundle import Bundle


@pytest.mark.parametrize(
    ("model", "before", "after", "problem"),
    [
        ("bcm_forward", 'name: "bcm_forward"', 'name: "other"', "config.pbtxt names the model 'other'"),
        ("bcm_forward", "max_batch_size: 16", "max_batch: 16", "is not a valid Triton model configuration"),
        ("bcm_forward", "count: 2", "count: 1", "dynamic batching with one instance: clients"),
        ("bcm_forward", 'name: "u"', 'name: "v"', "the inputs in config.pbtxt are"),
        ("bcm_forward", "dims: 8", "dims: 9", "the inputs in config.pbtxt are"),
        ("bcm_forward", "TYPE_INT64", "TYPE_INT32", "the inputs in config.pbtxt are"),
        ("bcm_forward", "batch_size: 1\n", "batch_size: 17\n", "17 samples, but the largest batch is 16"),
        ("bcm_inpaint", 'key: "mask"', 'key: "musk"', "the warm-up has the inputs"),
        ("bcm_inpaint", 'data_file: "mask"', 'data_file: "none"', "warmup/none is not a sample of mask"),
    ],
)
def test_wrong_configuration_is_found(
    bundle: Bundle, tmp_path: Path, model: str, before: str, after: str, problem: str
):
    root = written(bundle, tmp_path / "r", "onnxruntime")
    file = root / model / "config.pbtxt"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(CheckFailed) as caught:
        lint(root, bundle, "fp32", ())
    assert problem in str(caught.value)


def test_changed_and_missing_files_are_found(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime")
    for file in ("bcm_forward/1/weights.bin", "bcm_invert/1/bundle/weights.bin"):
        (root / file).unlink()  # it may be a hard link to another file of the repository
        (root / file).write_bytes(b"others")
    (root / "bcm_generate" / "1" / "model.py").unlink()
    with pytest.raises(CheckFailed) as caught:
        lint(root, bundle, "fp32", ())
    models = [line.split(": ")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert models == ["bcm_forward", "bcm_generate", "bcm_invert"]


def test_configuration_must_fit_the_engines(bundle: Bundle, tmp_path: Path):
    with_plans = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 6))
    plan = plan_repository(with_plans, tmp_path / "r", "tensorrt", None, Serving(), (), False, False)
    write_repository(plan)
    file = tmp_path / "r" / "bcm_forward" / "config.pbtxt"
    text = file.read_text().replace("max_batch_size: 6", "max_batch_size: 16")
    file.write_text(text.replace('value: "sm87.plan"', 'value: "sm88.plan"'))
    message = r"the plan of .* is missing(.|\n)*has the profiles 1:4:6"
    with pytest.raises(CheckFailed, match=message) as caught:
        lint(tmp_path / "r", with_plans, "fp32", plan.engines)
    assert "the default plan sm87.plan is not one of the plans" in str(caught.value)
