"""The list of an engine's layers as TensorRT for RTX's builder logs it, turned into the engine inspector's JSON. Pure.

Without a GPU no engine can be loaded and inspected, but a build with detailed profiling and a logger that keeps VERBOSE
logs one message that begins with `Layers:`: the inspector's one-line form, a line for each layer. `I/O Tensors:` and
`Engine Metadata:` follow.
"""

from __future__ import annotations

import json
import re
from typing import Any

HEADING = "Layers:"
_RANK_OF_IMAGES = 4
_LATER_GRAPH = re.compile(r"^Name: .*?\[profile [1-9]\d*\]\S*(_myl\d+_)", re.MULTILINE)
_KEYS = ("Name", "LayerType", "Inputs", "Constants", "Outputs", "TacticName", "StreamId", "EventId", "Metadata")
_KEY = re.compile(rf"(?:^|, )({'|'.join(_KEYS)}): ")
_TENSORS = frozenset({"Inputs", "Constants", "Outputs"})
_TENSOR = re.compile(
    r"\{ Name: (?P<Name>.*?), Dimensions: \[(?P<Dimensions>[\d,-]*)\], .*?Datatype: (?P<Datatype>\w+), "
    r"Format: (?P<Format>.*?) \}"
)


def inspector_json(message: str) -> str:
    """Return what the engine inspector would say of the layers in a message of the builder's logger.

    Each profile is a graph of its own; in the later ones only the layers of ONNX nodes bear a profile's mark, so that
    whole graphs are left out here.
    """
    later = set(_LATER_GRAPH.findall(message))
    lines = message.removeprefix(HEADING).strip().split("\n\n")[0].splitlines()
    layers = [_layer(line) for line in lines if line.startswith("Name: ")]
    return json.dumps({"Layers": [one for one in layers if not any(mark in one["Name"] for mark in later)]})


def pads_a_batch(text: str) -> bool:
    """Say whether an engine, by its inspector's JSON, holds constants of a whole batch.

    Depthwise convolutions in INT8 are computed with more input channels than they have: the others are zeros, stored as
    [batch, channels, 3, height, width] with the pointwise kernel that joins them.
    """
    kernels = [layer for layer in json.loads(text)["Layers"] if layer.get("LayerType") == "kgen"]
    constants = [one for layer in kernels for one in layer.get("Constants", ())]
    return any(one["Datatype"] == "Int8" and len(one["Dimensions"]) > _RANK_OF_IMAGES for one in constants)


def _layer(line: str) -> dict[str, Any]:
    parts = _KEY.split(line)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {key: _tensors(value) if key in _TENSORS else value for key, value in found.items()}


def _tensors(text: str) -> list[dict[str, Any]]:
    found = [match.groupdict() for match in _TENSOR.finditer(text)]
    return [one | {"Dimensions": [int(size) for size in one["Dimensions"].split(",") if size]} for one in found]
