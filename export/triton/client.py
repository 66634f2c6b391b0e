"""Request an image from a running server. Needs only Python and Pillow.

python client.py --seed 7 --label 3 -o three.png
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).with_name("triton.json")  # written beside this file
CHECK_SECONDS = 8.0  # after that long a server that answers slowly counts as busy, and the check passes
REQUEST_SECONDS = 60.0
QUEUE_MICROSECONDS = 1_000_000  # how long a request of the check may wait in the server's queue
INVALID_SCHEDULE = "none"  # every model refuses it before it computes anything


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", type=int, help="class of the image, for models with classes")
    parser.add_argument("--schedule", help="a name, such as mixture-4, or a text, such as '80>2.4>0.002'")
    parser.add_argument(
        "--check",
        action="store_true",
        help="for probes: check that every process of the tasks is alive; exit code 1 if one is not",
    )
    parser.add_argument("-o", "--output", default="image.png")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check(arguments.url)
            return
        pixels = request_image(arguments.url, arguments.seed, arguments.label, arguments.schedule)
    except urllib.error.HTTPError as error:
        sys.exit(f"the server refused the request: {error.read().decode()}")
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"no server at {arguments.url}: {error}")
    try:
        save(pixels, arguments.output)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{arguments.output} cannot be written: {error}")
    print(arguments.output)


def request_image(url: str, seed: int, label: int | None, schedule: str | None) -> dict[str, Any]:
    """Return the output `pixels` of one image: its shape [1, C, H, W] and its data, one list of 0 to 255."""
    inputs = [_tensor("seed", "UINT64", [1, 1], [seed])]
    if label is not None:
        inputs.append(_tensor("label", "INT64", [1, 1], [label]))
    if schedule is not None:
        inputs.append(_tensor("schedule", "BYTES", [1, 1], [schedule]))
    request = {"inputs": inputs, "outputs": [{"name": "pixels"}]}
    answer = _post(url, "bcm_generate", request, REQUEST_SECONDS)
    return answer["outputs"][0]


def check(url: str) -> None:
    """Exit with code 1 if a process of a task is dead.

    Each task gets twice as many requests as it has processes. They are refused at once, so they cost no
    time. The check passes while the server is busy: refusals, full queues and slow answers count as alive,
    and after CHECK_SECONDS the remaining requests are left out.
    """
    repository = json.loads(REPOSITORY.read_text())
    requests_per_task = 2 * repository["serving"]["instances"]
    deadline = time.monotonic() + CHECK_SECONDS
    for model in repository["tasks"]:
        request = _invalid_request(url, model)
        for _ in range(requests_per_task):
            if time.monotonic() > deadline:
                return
            try:
                _post(url, model, request, timeout=CHECK_SECONDS / 2)
            except urllib.error.HTTPError as error:
                message = error.read().decode()
                if "is not healthy" in message:
                    sys.exit(f"{model}: {message}")
            except TimeoutError:
                continue


def save(pixels: dict[str, Any], path: str) -> None:
    """Write the image. pixels: as `request_image` returns them."""
    from PIL import Image  # --check does not need it

    _, channels, height, width = pixels["shape"]
    size = height * width
    planes = []
    for channel in range(channels):
        values = bytes(pixels["data"][channel * size : (channel + 1) * size])
        planes.append(Image.frombytes("L", (width, height), values))
    image = planes[0] if channels == 1 else Image.merge("RGB", planes)
    image.save(path)


def _invalid_request(url: str, model: str) -> dict[str, Any]:
    """A request that the model refuses: one sample of zeros, with invalid schedules."""
    with urllib.request.urlopen(f"{url}/v2/models/{model}/config", timeout=CHECK_SECONDS) as answer:
        config = json.load(answer)
    inputs = []
    for tensor in config["input"]:
        if tensor["name"] in ("schedule", "inversion"):
            inputs.append(_tensor(tensor["name"], "BYTES", [1, 1], [INVALID_SCHEDULE]))
        if tensor["optional"]:
            continue
        shape = [1, *map(int, tensor["dims"])]
        zero = False if tensor["data_type"] == "TYPE_BOOL" else 0
        datatype = tensor["data_type"].removeprefix("TYPE_")
        inputs.append(_tensor(tensor["name"], datatype, shape, [zero] * math.prod(shape)))
    return {"inputs": inputs, "parameters": {"timeout": QUEUE_MICROSECONDS}}


def _post(url: str, model: str, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    body = json.dumps(request).encode()
    with urllib.request.urlopen(f"{url}/v2/models/{model}/infer", body, timeout=timeout) as answer:
        return json.load(answer)


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


if __name__ == "__main__":
    main()
