"""The files and configurations of a repository for Triton."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from plans import with_engine
from repositories import config, written

from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.contents import archive_runtime
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle

TASKS = ["bcm_generate", "bcm_inpaint", "bcm_interpolate", "bcm_invert", "bcm_reconstruct"]


MOVES = ["bcm_forward", "bcm_inverse"]


def test_repository_contains_models_client_and_readme(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime", fused=("mixture-4", "invert-2"))
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    files = {path.name for path in root.iterdir() if path.is_file()}
    assert folders == {*TASKS, *MOVES, "bcm_mixture-4", "bcm_invert-2"}
    assert files == {"Dockerfile", "README.md", "client.py", "triton.json"}
    forward = root / "bcm_forward" / "1"
    assert {path.name for path in forward.iterdir()} == {"model.onnx", "weights.bin"}
    assert (forward / "model.onnx").read_bytes() == (bundle.path / "forward.onnx").read_bytes()
    assert open_bundle(root / "bcm_generate" / "1" / "bundle").manifest == bundle.manifest
    report = json.loads((root / "triton.json").read_text())
    assert (report["platform"], report["precision"]) == ("onnxruntime", "fp32")
    assert report["bundle"] == {name: facts.sha256 for name, facts in bundle.manifest.files.items()}


def test_equal_files_are_links_to_one_file_outside_the_bundle(bundle: Bundle, tmp_path: Path):
    before = {name: (bundle.path / name).stat().st_nlink for name in bundle.manifest.files}
    root = written(bundle, tmp_path / "r", "onnxruntime", fused=("mixture-4",))
    assert {name: (bundle.path / name).stat().st_nlink for name in bundle.manifest.files} == before
    weights = [file.stat() for file in root.rglob("weights.bin")]
    assert len(weights) == 8
    assert len({(file.st_dev, file.st_ino) for file in weights}) == 1


def test_configurations_set_batching_queues_and_tensors(bundle: Bundle, tmp_path: Path):
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
    # The timeout action is REJECT, which is the default and not written.
    assert generate["dynamic_batching"]["default_queue_policy"] == policy
    assert [tensor["name"] for tensor in generate["input"]] == ["seed", "label", "schedule", "latent"]
    assert [tensor.get("optional", False) for tensor in generate["input"]] == [False, False, True, True]
    assert [tensor["name"] for tensor in forward["input"]] == ["x", "t", "u", "label"]
    assert forward["input"][1] == {"name": "t", "data_type": "TYPE_FP32", "dims": ["1"], "reshape": {}}
    digest = forward["parameters"]["sha256 of weights.bin"]["string_value"]
    assert digest == bundle.manifest.files["weights.bin"].sha256
    assert "response_cache" not in generate


def test_one_instance_has_no_dynamic_batching(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "python", Serving(instances=1))
    assert not any("dynamic_batching" in config(root, model) for model in (*TASKS, *MOVES))
    assert "One instance per model and no dynamic batching" in (root / "README.md").read_text()


def test_warm_up_requests_are_valid(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime")
    assert np.fromfile(root / "bcm_forward" / "warmup" / "t", np.float32).tolist() == [80]
    assert np.fromfile(root / "bcm_inverse" / "warmup" / "u", np.float32).tolist() == [80]
    mask = np.fromfile(root / "bcm_inpaint" / "warmup" / "mask", np.bool_)
    assert (len(mask), mask.sum()) == (64, 1)
    inputs = config(root, "bcm_interpolate")["model_warmup"][0]["inputs"]
    assert set(inputs) == {"image", "image_b", "seed", "label"}


def test_onnxruntime_may_use_tensorrt_with_an_engine_cache(bundle: Bundle, tmp_path: Path):
    root = written(bundle, tmp_path / "r", "onnxruntime", Serving(trt_cache="/cache"))
    accelerators = config(root, "bcm_forward")["optimization"]["execution_accelerators"]
    (accelerator,) = accelerators["gpu_execution_accelerator"]
    assert accelerator["name"] == "tensorrt"
    assert accelerator["parameters"] == {
        "precision_mode": "FP32",
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": "/cache",
        "trt_profile_min_shapes": "x:1x1x8x8,t:1,u:1,label:1",
        "trt_profile_opt_shapes": "x:16x1x8x8,t:16,u:16,label:16",
        "trt_profile_max_shapes": "x:16x1x8x8,t:16,u:16,label:16",
    }


def test_plans_are_chosen_by_compute_capability(bundle: Bundle, tmp_path: Path):
    with_one = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 6))
    with_plans = with_engine(with_one, tmp_path / "c", "9.0", (1, 8, 16))
    root = written(with_plans, tmp_path / "r", "tensorrt")
    forward = config(root, "bcm_forward")
    assert forward["cc_model_filenames"] == {"8.7": "sm87.plan", "9.0": "sm90.plan"}
    assert forward["max_batch_size"] == 6
    assert forward["optimization"]["cuda"]["graphs"]
    assert [spec["batch_size"] for spec in forward["optimization"]["cuda"]["graph_spec"]] == [1, 2, 4, 6]
    assert [sample["batch_size"] for sample in forward["model_warmup"]] == [1, 2, 4, 6]
    assert (root / "bcm_inverse" / "1" / "sm87.plan").read_bytes() == b"inverse of 8.7"
    assert config(root, "bcm_generate")["parameters"]["backend"]["string_value"] == "tensorrt"


def test_all_profiles_of_the_plans_are_used(bundle: Bundle, tmp_path: Path):
    profiles = [(1, 1, 1), (2, 4, 8), (6, 12, 12)]
    with_plans = with_engine(bundle, tmp_path / "b", "8.7", *profiles)
    forward = config(written(with_plans, tmp_path / "r", "tensorrt"), "bcm_forward")
    assert forward["max_batch_size"] == 12
    assert [group["profile"] for group in forward["instance_group"]] == [["0", "1", "2"]]
    assert [spec["batch_size"] for spec in forward["optimization"]["cuda"]["graph_spec"]] == [1, 2, 4, 8, 12]
    one = config(written(bundle, tmp_path / "s", "onnxruntime"), "bcm_forward")
    assert "profile" not in one["instance_group"][0]


def test_single_engine_is_published_for_both_directions(bundle: Bundle, tmp_path: Path):
    with_one = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 16), single=True)
    with_plans = with_engine(with_one, tmp_path / "c", "9.0", (1, 4, 16))
    root = written(with_plans, tmp_path / "r", "tensorrt")
    assert not (root / "bcm_forward").exists()
    assert config(root, "bcm_inverse")["cc_model_filenames"] == {"8.7": "sm87.plan", "9.0": "sm90.plan"}
    readme = (root / "README.md").read_text()
    assert "## bcm_forward" not in readme
    assert "One move in either direction; noise may be 0." in readme


def test_archive_of_the_runtime_is_complete_and_reproducible(tmp_path: Path):
    for name in ("a.zip", "b.zip"):
        archive_runtime(tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    assert {"bcm_edge/__init__.py", "bcm_edge/errors.py", "bcm_edge/serving/models.py"} <= set(names)
    parts = ("bcm_edge/runtime/", "bcm_edge/serving/", "bcm_edge/__init__.py", "bcm_edge/errors.py")
    assert all(name.startswith(parts) for name in names)


def test_readme_describes_the_platform(bundle: Bundle, tmp_path: Path):
    python = (written(bundle, tmp_path / "python", "python") / "README.md").read_text()
    graphs = (written(bundle, tmp_path / "graphs", "onnxruntime") / "README.md").read_text()
    assert "Graphs and plans check only" in graphs
    assert "Graphs and plans check only" not in python
    assert "The tasks run on the processor" in python
    assert "first GPU" not in python
