"""What TensorRT's engine inspector tells of an engine: which precision each layer runs in, and what it cost. Pure.

Two schemas are read: TensorRT 10 joins layout and type in `Format/Datatype` and lists `Bindings`; 11 has them apart and
lists `I/O Tensors`. Layers of Myelin, the compiler within both and all of TensorRT for RTX's, have types of their own,
and their weights stand first among `Constants`. Nothing in it is sure: layers may be bare names, a type may be "N/A due
to dynamic shapes" even where the shapes are set, and convolutions may hide in one fused region. What cannot be told
counts as unknown.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.errors import listed
from trtbench.precision import NONE_IN_INT8

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

UNKNOWN = "unknown"
# How 10 and 11 spell a tensor's type; 10 hides it in words such as "Thirty-two wide channel vectorized row major Int8".
_TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType", "Data Type", "Type", "Format")
# BFloat16 before the halves: its name ends as theirs do.
_SPELLINGS = (
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("int8", re.compile(r"(?<!u)int8", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8|float8", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half|float16", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float", re.IGNORECASE)),
)
# Kernels name their arithmetic: sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_...
_TACTICS = (
    ("int8", re.compile(r"(?:^|_)(?:i8i8|int8|imma|i8816|i16832)", re.IGNORECASE)),
    ("bf16", re.compile(r"bf16", re.IGNORECASE)),
    ("fp16", re.compile(r"(?:^|_)(?:f16f16|fp16|h884|h16816|h1688|hmma|f16)", re.IGNORECASE)),
    ("tf32", re.compile(r"tf32", re.IGNORECASE)),
    ("fp32", re.compile(r"(?:^|_)(?:f32f32|fp32|ffma|scudnn|sgemm)", re.IGNORECASE)),
)
_BYTES = {"int8": 1, "fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
_LATER_PROFILE = re.compile(r"\[profile +[1-9]\d*\]")  # the first profile's layers bear no mark
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_JOINTS = re.compile(r"\s\+\s|\s\|\|\s|[\x1e\x1f]|[(),]")
# Myelin's layers that multiply by weights; a `kgen` is a generated kernel that computes pointwise, in floats, and names
# the convolution before it too.
_MYELIN_CONVOLUTION = "correlation"
_MYELIN_PRODUCTS = frozenset({_MYELIN_CONVOLUTION, "gemm", "runtime_fusion"})
_MYELIN_POINTWISE = "kgen"
_BOOKKEEPING = frozenset({"constant", "noop", "signal", "wait", "shapehosttodevice", "shuffle"})
_QUANTIZERS = frozenset({"quantize", "dequantize"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of an engine.

    Args:
        name: TensorRT's, of the ONNX nodes it fused; not stable between builds.
        kind: compute, reformat, quantizer or bookkeeping.
        weight_bytes: of its weights and bias, or of a product's constants, by name; empty where it lists none.
    """

    name: str
    kind: str
    precision: str
    nodes: frozenset[str]
    is_convolution: bool
    is_product: bool
    weight_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """What became of a requested precision.

    Args:
        layers: how many layers there are, those of the first profile counted.
        by_precision: computing layers by precision.
        convolutions: the precision of each of the graph's convolutions, by name; unknown where no layer names it.
        reformats: layers that only change layout or type between two others.
        unfused: Q and DQ nodes that became layers of their own; that of the network's input always does.
        weight_bytes: bytes of the weights; None where not every convolution lists its own.
        is_detailed: the engine was built with the detail that all this needs.
    """

    layers: int
    by_precision: Mapping[str, int]
    convolutions: Mapping[str, str]
    reformats: int
    unfused: int
    weight_bytes: int | None
    is_detailed: bool


def report_layers(text: str, *, convolutions: Sequence[str] = ()) -> LayerReport:
    """Read the inspector's JSON of an engine.

    Args:
        text: what `get_engine_information` returned.
        convolutions: the names of the graph's convolutions; without them the layers that are convolutions count.
    """
    raw = _layers(text)
    layers = [_layer(one) for one in raw if isinstance(one, dict)]
    computing = [layer for layer in layers if layer.kind == "compute"]
    weights = {name: size for layer in layers for name, size in layer.weight_bytes.items()}
    lists_all = bool(weights) and all(layer.weight_bytes for layer in computing if layer.is_convolution)
    return LayerReport(
        layers=len(raw),
        by_precision=dict(Counter(layer.precision for layer in computing)),
        convolutions=_by_convolution(layers, convolutions),
        reformats=sum(layer.kind == "reformat" for layer in layers),
        unfused=sum(layer.kind == "quantizer" for layer in layers),
        weight_bytes=sum(weights.values()) if lists_all else None,
        is_detailed=bool(layers),
    )


def achieved(report: LayerReport, *, precision: str, target: str) -> tuple[str, tuple[str, ...]]:
    """Say what became of the requested precision, and note where that is not all of it.

    Args:
        report: what the inspector told.
        precision: the requested one.
        target: what its convolutions should have.
    """
    counts = Counter(report.convolutions.values())
    total, met = counts.total(), counts[target]
    if not total or counts[UNKNOWN] == total:
        note = f"requested {precision}: the engine inspector does not tell what was achieved"
        return f"{precision}, unproven", (note,)
    words = precision if met == total and precision == target else f"{target} in {met} of {total} convolutions"
    if met == total:
        return words, ()
    if target == "int8" and not met and not counts[UNKNOWN] and not report.by_precision.get(target):
        words = f"{counts.most_common(1)[0][0]}{NONE_IN_INT8}{total} convolutions"
    others = ", ".join(f"{count} {name}" for name, count in counts.items() if name != target)
    left = tuple(name for name, found in report.convolutions.items() if found != target)
    note = f"requested {precision}, achieved {met} of {total} convolutions ({others}): {listed(left, 5)}"
    return words, (note,)


def _layers(text: str) -> list[Any]:
    """Return the layers of the first profile: dicts, or bare names where the engine was built without detail."""
    try:
        document = json.loads(text)
    except ValueError:
        return []
    layers = document.get("Layers", []) if isinstance(document, dict) else []
    return [one for one in layers if not _LATER_PROFILE.search(_name(one))]


def _name(layer: Any) -> str:
    return str(layer.get("Name", "")) if isinstance(layer, dict) else str(layer)


def _layer(raw: Mapping[str, Any]) -> Layer:
    name = _name(raw)
    return Layer(
        name=name,
        kind=_kind(raw),
        precision=_precision(raw),
        nodes=frozenset(_nodes(name, str(raw.get("Metadata", "")))),
        is_convolution=_is_convolution(raw),
        is_product=_is_convolution(raw) or raw.get("LayerType") in _MYELIN_PRODUCTS,
        weight_bytes=dict(_weight_bytes(raw)),
    )


def _kind(raw: Mapping[str, Any]) -> str:
    kinds = {str(raw.get(key, "")).lower() for key in ("LayerType", "ParameterType")}
    if kinds & _QUANTIZERS or str(raw.get("Origin", "")).upper() == "QDQ":
        return "quantizer"
    if "reformat" in kinds or _name(raw).startswith("Reformatting CopyNode"):
        return "reformat"
    return "bookkeeping" if kinds & _BOOKKEEPING else "compute"


def _is_convolution(raw: Mapping[str, Any]) -> bool:
    types = [str(raw.get(key, "")).lower() for key in ("LayerType", "ParameterType")]
    return _kind(raw) == "compute" and any("conv" in one or one == _MYELIN_CONVOLUTION for one in types)


def _precision(raw: Mapping[str, Any]) -> str:
    """Return the arithmetic of a layer: of its weights, else of its first input with a type, else of its kernel.

    TF32 is seen in the kernel's name only: its tensors and weights are FP32. Of Myelin's products both factors must be
    INT8 to call it so.
    """
    kind = raw.get("LayerType")
    if kind in _MYELIN_PRODUCTS:
        factors = [_type(one) for one in (*_tensors(raw, "Inputs")[:1], *_tensors(raw, "Constants")[:1])]
        return next((one for one in factors if one != "int8"), "int8" if factors else UNKNOWN)
    if kind == _MYELIN_POINTWISE:
        touched = [_type(one) for key in ("Inputs", "Constants", "Outputs") for one in _tensors(raw, key)]
        return next((one for one in touched if one not in {"int8", UNKNOWN}), UNKNOWN)
    tactic = _spelled(str(raw.get("TacticName", "")), _TACTICS)
    seen = [
        _type(raw.get("Weights")),
        *map(_type, _tensors(raw, "Inputs")),
        *map(_type, _tensors(raw, "Outputs")),
        tactic,
    ]
    found = next((one for one in seen if one != UNKNOWN), UNKNOWN)
    return "tf32" if (found, tactic) == ("fp32", "tf32") else found


def _tensors(raw: Mapping[str, Any], key: str) -> list[Any]:
    found = raw.get(key, [])
    return found if isinstance(found, list) else []


def _type(tensor: Any) -> str:
    if not isinstance(tensor, dict):
        return UNKNOWN
    return next(
        (one for key in _TYPE_KEYS if (one := _spelled(str(tensor.get(key, "")), _SPELLINGS)) != UNKNOWN), UNKNOWN
    )


def _spelled(text: str, spellings: Iterable[tuple[str, re.Pattern[str]]]) -> str:
    return next((name for name, pattern in spellings if pattern.search(text)), UNKNOWN)


def _nodes(name: str, metadata: str) -> Iterator[str]:
    """Yield the ONNX nodes that a layer names, in its metadata or its own name."""
    yield from _ONNX_LAYER.findall(metadata)
    yield from (part.strip() for part in _JOINTS.split(name))


def _weight_bytes(raw: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield what a layer holds, under a name that two layers share where they share it.

    The constants of a pointwise kernel are passed over: among them are zeros that pad a whole batch.
    """
    for key in ("Weights", "Bias"):
        if isinstance(one := raw.get(key), dict):
            yield f"{_name(raw)}.{key}", int(one.get("Count", 0)) * _BYTES.get(_type(one), 4)
    for one in _tensors(raw, "Constants") if raw.get("LayerType") in _MYELIN_PRODUCTS else ():
        yield str(one.get("Name", "")), math.prod(one.get("Dimensions", ())) * _BYTES.get(_type(one), 4)


def _by_convolution(layers: Sequence[Layer], names: Sequence[str]) -> dict[str, str]:
    """Return each convolution's precision: of a convolution that names it, else of a product, else of what does."""
    if not names:
        return {layer.name: layer.precision for layer in layers if layer.is_convolution}
    wanted, found = set(names), dict.fromkeys(names, UNKNOWN)
    computing = (layer for layer in layers if layer.kind == "compute")
    for layer in sorted(computing, key=lambda one: (one.is_convolution, one.is_product)):  # what is written last, stays
        found |= dict.fromkeys(layer.nodes & wanted, layer.precision)
    return found
