"""The Inception network of FID: the numbers of torch-fidelity, and weights from files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import ROUNDING, relative_l2
from refusals import Payload
from safetensors.torch import save_file

from bcm_edge.errors import CheckpointError, ImageError
from bcm_edge.evaluation.extractors import Inception, _network, open_inception
from bcm_edge.runtime.pixels import from_uint8

pytestmark = [pytest.mark.numerical, pytest.mark.slow]  # a network of 96 MB


def inception_weights() -> dict[str, torch.Tensor]:
    """Return weights from a formula, with the names and shapes of the published file (without counters)."""
    tensors = {}
    for rank, (name, tensor) in enumerate(sorted(_network().state_dict().items())):
        values = np.random.default_rng(rank).random(tuple(tensor.shape), np.float32)
        if name.endswith("conv.weight"):
            values = (values - 0.5) * np.float32((24 / values[0].size) ** 0.5)
        elif name.endswith(("running_var", "bn.weight")):
            values = values + 0.5
        else:
            values = (values - 0.5) / 4
        if not name.endswith("num_batches_tracked"):
            tensors[name] = torch.from_numpy(values)
    return tensors


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """The weights from a formula, computed once."""
    return inception_weights()


@pytest.fixture(scope="module")
def weights_file(
    weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(weights, path)
    yield path
    path.unlink()  # 96 MB


@pytest.fixture(scope="module")
def inception(weights_file: Path) -> Inception:
    return open_inception(weights_file)


def test_inception_features_are_those_of_torch_fidelity(inception: Inception):
    """The numbers are those of torch-fidelity 0.4.0 with the same weights and picture."""
    y, x = np.mgrid[:20, :24]
    picture = from_uint8(np.stack([10 * x, 12 * y, x * y % 256]).astype(np.uint8)[None])
    features = inception.features(picture)
    assert features.shape == (1, 2048)
    assert features.dtype == np.float32
    expected = [0.8953931, 0, 0, 11.614411, 0.456252, 0.35501626, 15.508301, 2.1126924]
    assert features[0, [0, 100, 400, 800, 1200, 1600, 2000, 2047]] == pytest.approx(expected, rel=1e-3)
    assert features.mean() == pytest.approx(4.143743, rel=1e-3)


def test_inception_accepts_grey_pictures_and_is_deterministic(inception: Inception):
    grey = np.random.default_rng(0).uniform(-1.2, 1.2, (2, 1, 8, 8)).astype(np.float32)
    features = inception.features(grey)
    assert relative_l2(inception.features(grey), features) < ROUNDING
    assert relative_l2(inception.features(grey.clip(-1, 1).repeat(3, axis=1)), features) < ROUNDING
    assert relative_l2(features[0], features[1]) > 10 * ROUNDING


def test_name_of_inception_contains_the_hash_of_its_weights(inception: Inception):
    assert inception.name.startswith(
        "2048 pool3 activations of the FID Inception network (weights.pth, sha256 "
    )


def test_inception_reads_safetensors_and_counters(
    weights: dict[str, torch.Tensor], inception: Inception, tmp_path: Path
):
    path = tmp_path / "weights.safetensors"
    save_file({**weights, "Mixed_5b.branch1x1.bn.num_batches_tracked": torch.tensor(7)}, path)
    picture = np.zeros((1, 1, 8, 8), np.float32)
    assert relative_l2(open_inception(path).features(picture), inception.features(picture)) < ROUNDING
    path.unlink()  # 96 MB


def test_inception_refuses_other_channels(inception: Inception):
    with pytest.raises(ImageError, match="2 channels"):
        inception.features(np.zeros((1, 2, 8, 8), np.float32))


def test_message_for_a_missing_file_names_the_weights(tmp_path: Path):
    message = r"absent\.pth: cannot be read .*give the FID Inception weights, the file pt_inception-2015"
    with pytest.raises(CheckpointError, match=message):
        open_inception(tmp_path / "absent.pth")


def test_inception_executes_no_pickle(tmp_path: Path):
    touched = tmp_path / "touched"
    torch.save({"fc.weight": Payload(touched)}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"more than tensors.*give the FID Inception weights"):
        open_inception(tmp_path / "evil.pth")
    assert not touched.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("Mixed_7c.branch3x3_2a.conv.weight"),
            r"1 tensors .*\(Mixed_7c.branch3x3_2a.conv.weight\)",
        ),
        (lambda w: w.update({"AuxLogits.fc.bias": torch.zeros(1)}), r"1 tensors .*\(AuxLogits.fc.bias\)"),
        (
            lambda w: w.update({"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}),
            r"2 tensors .*\(fc.bias, fc.weight\)",
        ),
        (lambda w: w.update({"fc.bias": torch.full((1008,), torch.nan)}), r"1 tensors .*\(fc.bias\)"),
        (lambda w: w.update({"fc.bias": 3}), r"1 tensors .*\(fc.bias\)"),
        (lambda w: w.clear(), r"472 tensors .*, …\)"),
    ],
)
def test_inception_refuses_the_tensors_of_another_network(
    weights: dict[str, torch.Tensor], change: Any, message: str, tmp_path: Path
):
    changed: dict[str, Any] = dict(weights)
    change(changed)
    torch.save(changed, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match=rf"wrong\.pth: {message}; give the FID"):
        open_inception(tmp_path / "wrong.pth")
    (tmp_path / "wrong.pth").unlink()  # 96 MB
