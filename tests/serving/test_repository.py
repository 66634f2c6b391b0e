"""What `bcm-edge triton` writes: configs that Triton's protobuf reads, what they promise, what the lint finds, what is refused."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli
from plans import with_engine

from bcm_edge.errors import BcmError, CheckFailed
from bcm_edge.export.triton.configs import Serving, read_config
from bcm_edge.export.triton.contents import archive_runtime
from bcm_edge.export.triton.lint import lint
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.export.triton.repository import write_repository
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle

TASKS = ["bcm_generate", "bcm_inpaint", "bcm_interpolate", "bcm_invert", "bcm_reconstruct"]
MOVES = ["bcm_forward", "bcm_inverse"]


@pytest.fixture(scope="module")
def bundle(digits_bundle: Path) -> Bundle:
    return open_bundle(digits_bundle)


def written(
    bundle: Bundle, root: Path, platform: str, serving: Serving | None = None, fused: tuple[str, ...] = ()
) -> Path:
    write_repository(plan_repository(bundle, root, platform, None, serving or Serving(), fused, False, False))
    return root


def config(root: Path, model: str) -> dict:
    return read_config((root / model / "config.pbtxt").read_text())


def test_everything_a_server_needs_is_there(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime", fused=("mixture-4", "invert-2"))
    assert sorted(p.name for p in root.iterdir() if p.is_dir()) == sorted(
        [*TASKS, *MOVES, "bcm_mixture-4", "bcm_invert-2"]
    )
    assert sorted(p.name for p in root.iterdir() if p.is_file()) == ["README.md", "client.py", "triton.json"]
    assert sorted(p.name for p in (root / "bcm_forward" / "1").iterdir()) == ["model.onnx", "weights.bin"]
    assert (root / "bcm_forward" / "1" / "model.onnx").read_bytes() == (
        bundle.path / "forward.onnx"
    ).read_bytes()
    assert open_bundle(root / "bcm_generate" / "1" / "bundle").manifest == bundle.manifest
    told = json.loads((root / "triton.json").read_text())
    assert (told["platform"], told["precision"]) == ("onnxruntime", "fp32")
    assert told["bundle"] == {name: facts.sha256 for name, facts in bundle.manifest.files.items()}


def test_equal_files_are_one_and_none_is_the_bundles(bundle: Bundle, tmp_path: Path):
    before = {name: (bundle.path / name).stat().st_nlink for name in bundle.manifest.files}
    root = written(bundle, tmp_path / "r", "onnxruntime", fused=("mixture-4",))
    assert {name: (bundle.path / name).stat().st_nlink for name in bundle.manifest.files} == before
    weights = [file.stat() for file in root.rglob("weights.bin")]
    assert len(weights) == 8 and len({(found.st_dev, found.st_ino) for found in weights}) == 1


def test_configs_say_what_was_measured_to_matter(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime", Serving(max_batch=8, instances=3))
    generate, forward = config(root, "bcm_generate"), config(root, "bcm_forward")
    assert generate["max_batch_size"] == forward["max_batch_size"] == 8
    assert generate["instance_group"] == [{"count": 3, "kind": "KIND_CPU"}]
    assert generate["dynamic_batching"]["max_queue_delay_microseconds"] == "2000"
    assert "max_queue_delay_microseconds" not in forward["dynamic_batching"]
    policy = {
        "default_timeout_microseconds": "30000000",
        "allow_timeout_override": True,
        "max_queue_size": 256,
    }
    assert (
        generate["dynamic_batching"]["default_queue_policy"] == policy
    )  # and REJECT, the first value of its kind
    assert [tensor["name"] for tensor in generate["input"]] == ["seed", "label", "schedule", "latent"]
    assert [tensor.get("optional", False) for tensor in generate["input"]] == [False, False, True, True]
    assert [tensor["name"] for tensor in forward["input"]] == ["x", "t", "u", "label"]
    assert forward["input"][1] == {"name": "t", "data_type": "TYPE_FP32", "dims": ["1"], "reshape": {}}
    assert (
        forward["parameters"]["sha256 of weights.bin"]["string_value"]
        == bundle.manifest.files["weights.bin"].sha256
    )
    assert "response_cache" not in generate


def test_one_instance_batches_nothing(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "python", Serving(instances=1))
    assert not any("dynamic_batching" in config(root, model) for model in (*TASKS, *MOVES))
    assert "One instance per model and no dynamic batching" in (root / "README.md").read_text()


def test_warm_ups_are_requests_that_can_be_answered(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime")
    assert np.fromfile(root / "bcm_forward" / "warmup" / "t", np.float32).tolist() == [80]
    assert np.fromfile(root / "bcm_inverse" / "warmup" / "u", np.float32).tolist() == [80]
    mask = np.fromfile(root / "bcm_inpaint" / "warmup" / "mask", np.bool_)
    assert mask.sum() == 1 and len(mask) == 64
    assert set(config(root, "bcm_interpolate")["model_warmup"][0]["inputs"]) == {
        "image",
        "image_b",
        "seed",
        "label",
    }


def test_onnxruntime_may_compile_with_tensorrt_and_keeps_engines(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime", Serving(trt_cache="/cache"))
    [accelerator] = config(root, "bcm_forward")["optimization"]["execution_accelerators"][
        "gpu_execution_accelerator"
    ]
    assert accelerator["name"] == "tensorrt"
    assert accelerator["parameters"] == {
        "precision_mode": "FP32",
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": "/cache",
        "trt_profile_min_shapes": "x:1x1x8x8,t:1,u:1,label:1",
        "trt_profile_opt_shapes": "x:16x1x8x8,t:16,u:16,label:16",
        "trt_profile_max_shapes": "x:16x1x8x8,t:16,u:16,label:16",
    }


def test_plans_by_compute_capability_with_cuda_graphs(bundle: Bundle, tmp_path: Path):
    held = with_engine(
        with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 6)), tmp_path / "c", "9.0", (1, 8, 16)
    )
    root = written(held, tmp_path / "r", "tensorrt")
    forward = config(root, "bcm_forward")
    assert forward["cc_model_filenames"] == {"8.7": "sm87.plan", "9.0": "sm90.plan"}
    assert forward["max_batch_size"] == 6
    assert forward["optimization"]["cuda"]["graphs"]
    assert [spec["batch_size"] for spec in forward["optimization"]["cuda"]["graph_spec"]] == [1, 2, 4, 6]
    assert [sample["batch_size"] for sample in forward["model_warmup"]] == [1, 2, 4, 6]
    assert (root / "bcm_inverse" / "1" / "sm87.plan").read_bytes() == b"inverse of 8.7"
    assert config(root, "bcm_generate")["parameters"]["backend"]["string_value"] == "tensorrt"


def test_the_runtime_travels_whole_and_equal(tmp_path: Path):
    for name in ("a.zip", "b.zip"):
        archive_runtime(tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    assert {"bcm_edge/__init__.py", "bcm_edge/errors.py", "bcm_edge/serving/models.py"} <= set(names)
    assert all(
        name.startswith(
            ("bcm_edge/runtime/", "bcm_edge/serving/", "bcm_edge/__init__.py", "bcm_edge/errors.py")
        )
        for name in names
    )


@pytest.mark.parametrize(
    ("model", "before", "after", "problem"),
    [
        (
            "bcm_forward",
            'name: "bcm_forward"',
            'name: "other"',
            "bcm_forward: config.pbtxt names the model 'other'",
        ),
        (
            "bcm_forward",
            "max_batch_size: 16",
            "max_batch: 16",
            "bcm_forward: config.pbtxt is not a valid Triton model configuration",
        ),
        ("bcm_forward", "count: 2", "count: 1", "dynamic batching with one instance: clients"),
        ("bcm_forward", 'name: "u"', 'name: "v"', "the inputs in config.pbtxt are"),
        ("bcm_forward", "dims: 8", "dims: 9", "the inputs in config.pbtxt are"),
        ("bcm_forward", "TYPE_INT64", "TYPE_INT32", "the inputs in config.pbtxt are"),
        (
            "bcm_forward",
            "batch_size: 1\n",
            "batch_size: 17\n",
            "the warm-up has 17 samples, but the largest batch is 16",
        ),
        ("bcm_inpaint", 'key: "mask"', 'key: "musk"', "the warm-up has the inputs"),
        (
            "bcm_inpaint",
            'input_data_file: "mask"',
            'input_data_file: "none"',
            "warmup/none is not a sample of mask (64 bytes)",
        ),
    ],
)
def test_the_lint_finds_what_does_not_fit(
    bundle: Bundle, tmp_path: Path, model: str, before: str, after: str, problem: str
):
    root = written(bundle, tmp_path / "r", "onnxruntime")
    file = root / model / "config.pbtxt"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(CheckFailed) as found:
        lint(root, bundle, "fp32", ())
    assert problem in str(found.value)


def test_the_lint_finds_changed_files(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime")
    for file in (
        root / "bcm_forward" / "1" / "weights.bin",
        root / "bcm_invert" / "1" / "bundle" / "weights.bin",
    ):
        file.unlink()  # it may be another name of the bundle's
        file.write_bytes(b"others")
    (root / "bcm_generate" / "1" / "model.py").unlink()
    with pytest.raises(CheckFailed) as found:
        lint(root, bundle, "fp32", ())
    assert [line.split(": ")[0].strip() for line in str(found.value).splitlines()[1:]] == [
        "bcm_forward",
        "bcm_generate",
        "bcm_invert",
    ]


def test_the_lint_knows_what_engines_take(bundle: Bundle, tmp_path: Path):
    held = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 6))
    plan = plan_repository(held, tmp_path / "r", "tensorrt", None, Serving(), (), False, False)
    write_repository(plan)
    file = tmp_path / "r" / "bcm_forward" / "config.pbtxt"
    file.write_text(
        file.read_text()
        .replace("max_batch_size: 6", "max_batch_size: 16")
        .replace('value: "sm87.plan"', 'value: "sm88.plan"')
    )
    with pytest.raises(
        CheckFailed, match=r"the plan of .* is missing(.|\n)*supports batches of 1 to 6"
    ) as found:
        lint(tmp_path / "r", held, "fp32", plan.engines)
    assert "the default plan sm87.plan is not one of the plans" in str(found.value)


@pytest.mark.parametrize(
    ("platform", "fused", "message"),
    [
        ("tensorrt", (), "has no engines of its fp32 graphs; build them with bcm-edge build"),
        ("python", ("one-step",), "played by Triton's ONNX Runtime backend"),
        ("onnxruntime", ("nonesuch",), "no schedule 'nonesuch' in this bundle; it has one-step"),
        ("onnxruntime", ("80>0.002",), "no schedule '80>0.002' in this bundle"),
    ],
)
def test_what_cannot_be_written_is_refused(
    bundle: Bundle, tmp_path: Path, platform: str, fused: tuple[str, ...], message: str
):
    with pytest.raises(BcmError, match=message):
        plan_repository(bundle, tmp_path / "r", platform, None, Serving(), fused, False, False)


def test_engines_that_want_several_samples_are_refused(bundle: Bundle, tmp_path: Path):
    held = with_engine(bundle, tmp_path / "b", "8.7", (4, 8, 16))
    with pytest.raises(BcmError, match="supports no fewer than 4 samples"):
        plan_repository(held, tmp_path / "r", None, None, Serving(), (), False, False)


@pytest.mark.parametrize("name", ["x/../../escaped", "generate", "inverse", ".hidden", "a b"])
def test_schedules_whose_names_are_no_models(bundle: Bundle, tmp_path: Path, name: str):
    named = replace(bundle, manifest=replace(bundle.manifest, schedules={name: "80>0.002"}))
    with pytest.raises(BcmError, match="cannot name a model"):
        plan_repository(named, tmp_path / "r", "onnxruntime", None, Serving(), (name,), False, False)


def test_precisions_that_no_processor_plays_are_refused(typed_bundle: Path, tmp_path: Path):
    with pytest.raises(BcmError, match="a server without engines cannot play bf16"):
        plan_repository(
            open_bundle(typed_bundle), tmp_path / "r", "onnxruntime", "bf16", Serving(), (), False, False
        )


def test_stripped_plans_are_refused(bundle: Bundle, tmp_path: Path):
    held = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 6), stripped=True)
    with pytest.raises(BcmError, match="its plans have no weights"):
        plan_repository(held, tmp_path / "r", None, None, Serving(), (), False, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "r", "--trt-cache", "cache"), "'cache' is not an absolute path on the server"),
        (
            ("-o", "r", "--trt-cache", "/cache", "--platform", "python"),
            "--trt-cache needs graphs that ONNX Runtime runs",
        ),
        (("-o", "BUNDLE/models"), "is inside the bundle that it is made from"),
        (("-o", "BUNDLE", "--force"), "is inside the bundle"),
        (("-o", "r", "--schedules", "nonesuch"), "no schedule 'nonesuch' in this bundle"),
    ],
)
def test_what_the_command_refuses(
    digits_bundle: Path, cli: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str
):
    words = [
        word.replace("BUNDLE", str(digits_bundle)) if word != "r" else tmp_path / "r" for word in arguments
    ]
    done = cli("triton", digits_bundle, *words)
    assert done.exit_code == 2 and message in done.stderr
    assert not (tmp_path / "r").exists() and not (digits_bundle / "models").exists()


def test_the_readme_is_of_the_platform(bundle: Bundle, tmp_path: Path):
    python, graphs = (
        (written(bundle, tmp_path / name, name) / "README.md").read_text()
        for name in ("python", "onnxruntime")
    )
    assert "Graphs and plans check only" in graphs and "Graphs and plans check only" not in python
    assert "The tasks run on the processor" in python and "first GPU" not in python


def test_the_command(digits_bundle: Path, cli: Cli, tmp_path: Path):
    root = tmp_path / "models"
    done = cli(
        "triton", digits_bundle, "-o", root, "--schedules", "one-step, mixture-4", "--max-batch", 4, "--json"
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == {
        "repository": str(root),
        "platform": "onnxruntime",
        "precision": "fp32",
        "models": [
            *("bcm_generate", "bcm_invert", "bcm_reconstruct", "bcm_interpolate", "bcm_inpaint"),
            *MOVES,
            "bcm_one-step",
            "bcm_mixture-4",
        ],
    }
    again = cli("triton", digits_bundle, "-o", root)
    assert again.exit_code == 2 and "exists already; --force replaces it" in again.stderr
    assert cli("triton", digits_bundle, "-o", root, "--force").exit_code == 0
    assert not (root / "bcm_mixture-4").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    kept = cli("triton", digits_bundle, "-o", tmp_path / "mine", "--force")
    assert kept.exit_code == 2 and (tmp_path / "mine" / "notes.txt").read_text() == "mine"
