"""Requests of a server, without a server: samples share network calls, errors reach only their request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bcm_edge
from bcm_edge import BcmError
from bcm_edge.errors import NonFiniteError
from bcm_edge.serving.answers import TASKS, Values, answer, answer_moves, stream
from bcm_edge.serving.signatures import move_signatures, stream_signature, task_signatures

PROGRAMS = ("a", "b", "c")


class Counting:
    """Adds 1 to x, or refuses a batch with a negative number; counts its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, int]] = []

    def __call__(self, shared: dict[str, Any], inputs: Values) -> dict[str, np.ndarray]:
        self.calls.append((shared.get("program"), len(inputs["x"])))
        if (inputs["x"] < 0).any():
            raise BcmError(f"{inputs['x'].min()} is below 0")
        return {"y": inputs["x"] + 1, "long": np.repeat(inputs["x"][:, None], 3, axis=1)}


def arrays(values: Values | BcmError) -> Values:
    """The arrays of an answer that is not an error."""
    assert not isinstance(values, BcmError)
    return values


def request(*x: float, program: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """A request of one or more samples."""
    return {
        "x": np.array(x, np.float32),
        **({} if program is None else {"program": np.array(program, object)}),
    }


def test_samples_of_equal_programs_share_a_call():
    play = Counting()
    first, second, third = answer(
        play, ("program",), [request(1, 2, program="ab"), request(3, program="a"), request(4)]
    )
    assert sorted(play.calls, key=str) == [("a", 2), ("b", 1), (None, 1)]
    assert [arrays(each)["y"].tolist() for each in (first, second, third)] == [[2, 3], [4], [5]]
    assert arrays(first)["long"].tolist() == [[1, 1, 1], [2, 2, 2]]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 99), st.sampled_from(PROGRAMS)), min_size=1, max_size=5),
        min_size=1,
        max_size=6,
    )
)
def test_every_sample_gets_its_own_answer(requests: list[list[tuple[int, str]]]):
    play = Counting()
    answers = answer(
        play,
        ("program",),
        [request(*(x for x, _ in rows), program=[p for _, p in rows]) for rows in requests],
    )
    assert [arrays(each)["y"].tolist() for each in answers] == [[x + 1 for x, _ in rows] for rows in requests]
    assert len(play.calls) == len({p for rows in requests for _, p in rows})


def test_error_reaches_only_its_request():
    first, second, third = answer(Counting(), (), [request(1), request(-1), request(3)])
    assert (arrays(first)["y"].tolist(), arrays(third)["y"].tolist()) == ([2], [4])
    assert str(second) == "-1.0 is below 0"


def test_no_requests_make_no_call():
    assert answer(Counting(), (), []) == []


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[bcm_edge.BCM]:
    """The shipped model."""
    with bcm_edge.load(digits_bundle, "onnxruntime") as opened:
        yield opened


def test_outputs_match_the_signature(bcm: bcm_edge.BCM):
    """Every task returns all outputs of its signature, in the types and shapes of the signature."""
    types = {"FP32": np.float32, "UINT8": np.uint8, "INT32": np.int32}
    values = {
        "seed": np.array([1, 2], np.uint64),
        "label": np.array([3, 4]),
        "label_b": np.array([5, 6]),
        "image": np.full((2, 1, 8, 8), -0.5, np.float32),
        "image_b": np.full((2, 1, 8, 8), -0.5, np.float32),
        "latent": np.ones((2, 1, 8, 8), np.float32),
        "mask": np.repeat((np.indices((8, 8))[0] > 3)[None], 2, axis=0),
        "frames": np.array([5, 5], np.int32),
        "inversion": np.array(["invert-1"] * 2, object),
        "value_range": np.array(["-1,1"] * 2, object),
    }
    for name, signature in task_signatures(bcm.bundle.manifest.model).items():
        schedule = {"invert": "invert-2", "inpaint": "80>0.002 +1 1>0.002"}.get(name, "mixture-4")
        inputs = {**values, "schedule": np.array([schedule] * 2, object)}
        [outputs] = TASKS[name].answer(
            bcm, [{tensor.name: inputs[tensor.name] for tensor in signature.inputs}]
        )
        assert not isinstance(outputs, BcmError), outputs
        assert set(outputs) == {tensor.name for tensor in signature.outputs}
        for tensor in signature.outputs:
            assert outputs[tensor.name].dtype == types[tensor.datatype]
            assert outputs[tensor.name].shape == (2, *(5 if n < 0 else n for n in tensor.dims))


def test_frames_must_agree_within_a_request(bcm: bcm_edge.BCM):
    image = np.full((2, 1, 8, 8), -0.5, np.float32)
    inputs = {
        "image": image,
        "image_b": image,
        "seed": np.array([1, 2]),
        "label": np.array([1, 2]),
        "frames": np.array([3, 4]),
    }
    [outputs] = TASKS["interpolate"].answer(bcm, [inputs])
    assert str(outputs) == "samples of one request must have the same number of frames"


def test_samples_of_moves_may_have_different_levels(bcm: bcm_edge.BCM):
    x = bcm.generate(3, labels=1)
    t, u = np.array([80, 2.4, 80], np.float32), np.array([2.4, 0.002, 2.4], np.float32)
    [outputs] = answer_moves(bcm.backend, "forward", [{"x": x, "t": t, "u": u, "label": np.array([1, 1, 1])}])
    assert not isinstance(outputs, BcmError)
    for i in range(3):
        [alone] = answer_moves(
            bcm.backend,
            "forward",
            [{"x": x[i : i + 1], "t": t[i : i + 1], "u": u[i : i + 1], "label": np.array([1])}],
        )
        assert not isinstance(alone, BcmError)
        np.testing.assert_allclose(outputs["x_u"][i], alone["x_u"][0], atol=1e-4)


def test_nan_is_an_error_of_the_model(bcm: bcm_edge.BCM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bcm.backend, "play_move", lambda x, *_: x * np.nan)
    [outputs] = TASKS["generate"].answer(bcm, [{"seed": np.array([1]), "label": np.array([1])}])
    assert isinstance(outputs, NonFiniteError)


def test_stream_has_one_schedule(bcm: bcm_edge.BCM):
    sent: list[dict[str, np.ndarray]] = []
    inputs = {
        "seed": np.array([1, 2], np.uint64),
        "label": np.array([1, 2]),
        "schedule": np.array(["mixture-4"] * 2, object),
    }
    stream(bcm, inputs, sent.append)
    assert [response["move"].tolist() for response in sent] == [
        [[1], [1]],
        [[2], [2]],
        [[3], [3]],
        [[4], [4]],
    ]
    assert {tensor.name for tensor in stream_signature(bcm.bundle.manifest.model).outputs} == set(sent[0])
    with pytest.raises(BcmError, match="must have the same schedule"):
        stream(bcm, {**inputs, "schedule": np.array(["mixture-4", "one-step"], object)}, sent.append)


def test_model_without_classes_has_no_label_inputs(bcm: bcm_edge.BCM):
    plain = bcm.bundle.manifest.model.__class__("plain", (3, 16, 16), None, 0, {})
    for signature in (
        *task_signatures(plain).values(),
        *move_signatures(plain).values(),
        stream_signature(plain),
    ):
        assert not {"label", "label_b"} & {tensor.name for tensor in signature.inputs}
