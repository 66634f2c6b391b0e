"""A picture from a running server, with Python and Pillow alone:  python client.py --seed 7 --label 3 -o three.png"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any

from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", type=int, help="for models with classes")
    parser.add_argument("--schedule", help="a name, as mixture-4, or a text, as '80>2.4>0.002'")
    parser.add_argument("-o", "--output", default="image.png")
    given = parser.parse_args()
    inputs = [_input("seed", "UINT64", given.seed)]
    inputs += [_input("label", "INT64", given.label)] if given.label is not None else []
    inputs += [_input("schedule", "BYTES", given.schedule)] if given.schedule else []
    request = {"inputs": inputs, "outputs": [{"name": "pixels"}]}
    try:
        with urllib.request.urlopen(f"{given.url}/v2/models/bcm_generate/infer", json.dumps(request).encode()) as answer:
            pixels = json.load(answer)["outputs"][0]
    except urllib.error.HTTPError as error:
        sys.exit(f"the server says: {error.read().decode()}")
    except urllib.error.URLError as error:
        sys.exit(f"no server at {given.url}: {error.reason}")
    _, channels, height, width = pixels["shape"]
    picture = Image.new("L" if channels == 1 else "RGB", (width, height))
    planes = [pixels["data"][i * height * width : (i + 1) * height * width] for i in range(channels)]
    picture.putdata(planes[0] if channels == 1 else list(zip(*planes, strict=True)))
    picture.save(given.output)
    print(given.output)


def _input(name: str, datatype: str, value: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1, 1], "data": [value]}


if __name__ == "__main__":
    main()
