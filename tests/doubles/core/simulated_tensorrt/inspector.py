"""What an engine is made of, in the JSON of either major."""

from __future__ import annotations

import json
from typing import Any

from . import facts
from .network import dtype_of, shape_of
from .strict import Made, kinds, strict

_FORMATS = {
    "INT8": ("Thirty-two wide channel vectorized row major Int8 format", "kCHW32", "Int8"),
    "FP16": ("Channel major FP16 format where channel % 8 == 0", "kHWC8", "Half"),
    "BF16": ("Channel major BF16 format where channel % 8 == 0", "kHWC8", "BFloat16"),
    "FP8": ("Row major linear FP8 format", "kLINEAR", "FP8"),
    "FP32": ("Row major linear FP32", "kLINEAR", "Float"),
}
_DATATYPES = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64"}


@strict("EngineInspector")
class EngineInspector(Made):
    """Describes layers; how much is there was decided by the profiling verbosity of the build."""

    execution_context: Any = None

    def _setup(self, engine: Any) -> None:
        self._engine = engine

    def get_layer_information(self, layer_index: int, format: Any) -> str:
        layers = self._layers()
        if not 0 <= layer_index < len(layers):
            return ""
        return _text(layers[layer_index], format)

    def get_engine_information(self, format: Any) -> str:
        layers = self._layers()
        if format == kinds.LayerInformationFormat.ONELINE:
            return "".join(f"{_text(each, format)}\n" for each in layers)
        key = "I/O Tensors" if facts.current().major > 10 else "Bindings"
        return json.dumps({"Layers": layers, key: self._tensors()}, indent=1)

    def _layers(self) -> list[Any]:
        verbosity = self._engine._header["verbosity"]
        layers = self._engine._header["layers"]
        if verbosity == "NONE":
            return []
        return [each["name"] if verbosity == "LAYER_NAMES_ONLY" else _detailed(each) for each in layers]

    def _tensors(self) -> list[Any]:
        engine = self._engine
        if facts.current().major == 10:
            return list(engine._io)
        return [self._tensor(name, value) for name, value in engine._io.items()]

    def _tensor(self, name: str, value: Any) -> dict[str, Any]:
        dtype = dtype_of(value.type.tensor_type.elem_type).name
        is_input = name in self._engine._inputs
        profiles = [self._engine._profile(each) for each in range(self._engine.num_optimization_profiles)]
        info = [
            {
                "MinShape": each[name][0],
                "OptShape": each[name][1],
                "MaxShape": each[name][2],
                "Format": f"Row major linear {dtype} format (kLINEAR)",
            }
            for each in profiles
            if is_input
        ]
        return {
            "Name": name,
            "IOMode": "Input" if is_input else "Output",
            "DataType": _DATATYPES.get(dtype, dtype),
            "Dimensions": list(shape_of(value)),
            "Location": "Device",
            "IsShapeInferenceIO": False,
            "ProfileInfo": info,
        }


def _detailed(layer: dict[str, Any]) -> dict[str, Any]:
    made = {
        "Name": layer["name"],
        "LayerType": layer["kind"],
        "Inputs": [_described(each) for each in layer["inputs"]],
        "Outputs": [_described(each) for each in layer["outputs"]],
        "ParameterType": layer["parameter"],
        "TacticName": f"simulated_{layer['precision'].lower()}",
        "StreamId": 0,
        "Metadata": "",
    }
    if "origin" in layer:
        made["Origin"] = layer["origin"]
    return made


def _described(tensor: dict[str, Any]) -> dict[str, Any]:
    text, layout, datatype = _FORMATS[tensor["precision"]]
    base = {"Name": tensor["name"], "Location": "Device", "Dimensions": tensor["shape"]}
    if facts.current().major == 10:
        return {**base, "Format/Datatype": text}
    return {**base, "Format": f"{text} ({layout})", "Datatype": datatype}


def _text(layer: Any, format: Any) -> str:
    if format == kinds.LayerInformationFormat.ONELINE:
        return layer if isinstance(layer, str) else str(layer["Name"])
    return json.dumps(layer)
