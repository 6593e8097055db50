"""A graph that comes as ONNX, without its PyTorch source: checked, and brought into the form of our own exports."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from trtbench.confined import confined
from trtbench.data.batches import fed
from trtbench.data.preprocess import normalise
from trtbench.disk import write_atomically
from trtbench.errors import ConfigError, GraphError
from trtbench.foreign import FAULTS, MISFITS, file_size, reason
from trtbench.graph.adapt import adapted, fixed_batch, flattened, is_channels_last
from trtbench.graph.reference import flat, plain_options, plain_session, run_reference
from trtbench.graph.simplify import simplify
from trtbench.graph.view import QUANTIZERS, view
from trtbench.jsonable import to_jsonable
from trtbench.records import AsTheyAre, Output, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

INPUT = "input"
OUTPUT = "logits"
_MAX_BYTES = 2**31  # of a message of protobuf; more lies in external data
_FEW = 2  # images that a graph is tried on
_MATRIX_RANK = 2
_RANK, _COLOURS = 4, "3"  # of a batch of images
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_TOLERANCE = 1e-2  # of the largest logit: a graph in FP16 rounds to half of that, where FP32 stays below 1e-5
_OTHER_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"PK", "a PyTorch checkpoint", "name the network with --model and this file with --checkpoint"),
    (b"\x80", "a PyTorch checkpoint", "name the network with --model and this file with --checkpoint"),
    (b"<", "a web page", "download the file itself, not the page about it"),
)
_CURE = "export it with one float32 input (batch, C, H, W), one output (batch, classes) and a free batch dimension"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was changed to bring a graph into our form, for people, and whether it has Q/DQ pairs of its own.

    `outputs` are its own, where images without labels compare them.
    """

    notes: tuple[str, ...]
    is_quantized: bool
    outputs: tuple[Output, ...] = ()


def import_confined(path: Path, target: Path, *, num_classes: int | None, preprocessing: Preprocessing) -> Imported:
    """Do what `import_onnx` does in a process with limits: it parses, folds and runs what nobody has vouched for.

    Raises:
        ConfigError: as there, or it took more memory or time than its size explains, or crashed the runtime.
        GraphError: its opset cannot be raised.
    """
    found = confined(
        "trtbench.graph.given:_import",
        path,
        target=str(target),
        num_classes=num_classes,
        preprocessing=to_jsonable(preprocessing),
    )
    outputs = tuple(Output(name=one["name"], shape=tuple(one["shape"])) for one in found["outputs"])
    return Imported(notes=tuple(found["notes"]), is_quantized=found["is_quantized"], outputs=outputs)


def _import(path: Path, *, target: str, num_classes: int | None, preprocessing: dict[str, Any]) -> dict[str, Any]:
    fit = Preprocessing.read(preprocessing)
    found = import_onnx(path, Path(target), num_classes=num_classes, preprocessing=fit)
    _try_optimised(onnx.load(target), fit)
    return {name: to_jsonable(getattr(found, name)) for name in ("notes", "is_quantized", "outputs")}


def _try_optimised(own: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Run a graph as engines run it: what crashes an optimiser does so here; what it refuses, each row tells."""
    with contextlib.suppress(Exception):
        session = plain_session(own, plain_options("ORT_ENABLE_ALL", severity=4))
        session.run(None, fed(normalise(_noise(preprocessing, 1), preprocessing)))


def import_onnx(path: Path, target: Path, *, num_classes: int | None, preprocessing: Preprocessing) -> Imported:
    """Write a user's ONNX graph to `target` in the form of our own exports, and prove that it computes the same.

    Args:
        path: the user's file; external data beside it is read.
        target: the file to write, atomically: one input `input`, a free batch, and one output `logits`; without
            classes every output, by its own name, and of tensors every input by its own.
        num_classes: how many classes the data has; None where it has no labels.
        preprocessing: how the data's images are normalised, and their size.

    Raises:
        ConfigError: it is no ONNX file, its input or output does not fit the data, or it cannot be brought there.
        GraphError: its opset cannot be raised.
    """
    proto = load_onnx(path)
    _require_tensors(proto, path, preprocessing, is_classifier=num_classes is not None)
    images = _noise(preprocessing, max(_FEW, fixed_batch(proto) or 0))
    expected = _answers(proto, images, preprocessing, path)
    own, notes = adapted(proto, preprocessing=preprocessing)
    if not isinstance(preprocessing, AsTheyAre):
        _rename(own.graph, own.graph.input[0].name, INPUT)
    outputs: tuple[Output, ...] = ()
    if num_classes is None:
        outputs = _own_outputs(own, expected, len(images), path)
    else:
        notes = (*notes, *_as_classifier(own, expected, num_classes, path))
    own = simplify(own)
    _require_same(own, normalise(images, preprocessing), flat(expected.values()), path)
    write_atomically(target, own.SerializeToString(deterministic=True))
    is_quantized = any(node.op_type in QUANTIZERS for node in own.graph.node)
    return Imported(notes=notes, is_quantized=is_quantized, outputs=outputs)


def _noise(preprocessing: Preprocessing, count: int) -> NDArray[Any]:
    """Return images, or samples of the data's tensors, of no meaning; whole numbers are 0 or 1: any may be an index."""
    random = np.random.default_rng(0)
    if not isinstance(preprocessing, AsTheyAre):
        return random.integers(0, 256, (count, *preprocessing.input_shape), dtype=np.uint8)
    samples = np.zeros(count, preprocessing.record)
    for one in preprocessing.tensors:
        shape, is_float = (count, *one.shape), np.dtype(one.dtype).kind == "f"
        samples[one.name] = random.standard_normal(shape) if is_float else random.integers(0, 2, shape)
    return samples


def _as_classifier(
    own: onnx.ModelProto, expected: Mapping[str, NDArray[np.float32]], num_classes: int, path: Path
) -> tuple[str, ...]:
    """Give a graph the one output `logits` (batch, classes), in place; return what was changed."""
    (logits,) = expected.values()
    if logits.shape[1:] not in {(num_classes,), (num_classes, 1, 1)}:
        wanted, got = f"logits of shape ({_FEW}, {num_classes}) for two images", str((_FEW, *logits.shape[1:]))
        cure = "give the --data it was trained on; of a network that is no classifier images:PATH, without labels"
        raise ConfigError(f"model {path}", expected=wanted, got=got, cure=cure)
    is_wide = logits.ndim > _MATRIX_RANK
    if is_wide:
        flattened(own)
    _rename(own.graph, own.graph.output[0].name, OUTPUT)
    own.graph.output[0].CopyFrom(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", num_classes]))
    return ("its logits (batch, classes, 1, 1) flattened",) if is_wide else ()


def _own_outputs(
    own: onnx.ModelProto, expected: Mapping[str, NDArray[np.float32]], images: int, path: Path
) -> tuple[Output, ...]:
    """Write down the shape of each output, in place, and return them; each is of one image along its first axis."""
    found = []
    for item, values in zip(own.graph.output, expected.values(), strict=True):
        if values.ndim == 0 or len(values) != images or not values[0].size:
            wanted, got = f"an output (batch, ...) of {images} images", f"shape {values.shape}"
            cure = "take what chooses among images or boxes, such as a NonMaxSuppression, off the graph"
            raise ConfigError(f"model {path}: {item.name}", expected=wanted, got=got, cure=cure)
        found.append(Output(name=item.name, shape=values.shape[1:]))
        shape = ["batch", *values.shape[1:]]
        item.CopyFrom(helper.make_tensor_value_info(item.name, TensorProto.FLOAT, shape))
    return tuple(found)


def graph_sha256(path: Path) -> str:
    """Return the sha256 (hex) of an ONNX file with the external data beside it, read in a process with limits.

    Raises:
        ConfigError: it is no ONNX file, or its data is missing.
    """
    refuse_other_kinds(path)
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@cache
def _sha256(path: Path, _size: int, _time: int) -> str:
    return str(confined("trtbench.graph.given:_sha256_here", path))


def _sha256_here(path: Path) -> str:
    return hashlib.sha256(load_onnx(path).SerializeToString(deterministic=True)).hexdigest()


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read a user's ONNX file with the external data beside it.

    Raises:
        ConfigError: it is none; what stands there instead is named where its first bytes tell.
    """
    refuse_other_kinds(path)
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except (*FAULTS, *MISFITS, DecodeError, onnx.checker.ValidationError) as error:
        got = " ".join(str(error).split())[:300]
        raise ConfigError(f"model {path}", expected="a valid ONNX file", got=got, cure=_CURE) from error
    return proto


def refuse_other_kinds(path: Path) -> None:
    """Name what stands where an ONNX file should, if its first bytes tell."""
    try:
        file_size(path, most=_MAX_BYTES)
        with path.open("rb") as file:
            head = file.read(64)
    except (OSError, ValueError) as error:
        got, cure = reason(error), "mend the path"
        raise ConfigError(f"model {path}", expected="an ONNX file", got=got, cure=cure) from error
    for start, got, cure in _OTHER_KINDS:
        if head.startswith(start):
            raise ConfigError(f"model {path}", expected="an ONNX file", got=got, cure=cure)


def _require_tensors(proto: onnx.ModelProto, path: Path, fit: Preprocessing, *, is_classifier: bool) -> None:
    """Demand one input that is no weight (older files list those too), outputs, one of a classifier, and only tensors.

    Without classes an output that is no float tensor cannot be compared.
    """
    weights = {item.name for item in proto.graph.initializer}
    inputs = [item for item in proto.graph.input if item.name not in weights]
    outputs = proto.graph.output
    if isinstance(fit, AsTheyAre):
        _require_inputs(inputs, fit, path)
    elif len(inputs) != 1 or (is_classifier and len(outputs) != 1):
        got = f"{len(inputs)} inputs and {len(outputs)} outputs"
        wanted = "one input and one output" if is_classifier else "one input, an image"
        several = "several outputs" if len(inputs) == 1 else "several inputs"
        source = "images:PATH" if len(inputs) == 1 else "npz:PATH"
        cure = f"{_CURE}; with --data {source} it may have {several}"
        raise ConfigError(f"model {path}", expected=wanted, got=got, cure=cure)
    for item in (*inputs, *outputs):
        if item.type.WhichOneof("value") != "tensor_type":
            got = str(item.type.WhichOneof("value") or "nothing").removesuffix("_type")
            raise ConfigError(f"model {path}: {item.name}", expected="a tensor", got=f"a {got}", cure=_CURE)
    for item in outputs:
        if not is_classifier and item.type.tensor_type.elem_type not in _FLOATS:
            got = helper.tensor_dtype_to_string(item.type.tensor_type.elem_type)
            cure = "leave this output out of the graph, or give it as floats"
            raise ConfigError(f"model {path}: {item.name}", expected="floats", got=got, cure=cure)
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)


def _require_inputs(inputs: Sequence[onnx.ValueInfoProto], fit: AsTheyAre, path: Path) -> None:
    """Demand that the data has each input, under its name, in its type and its shape."""
    tensors = {one.name: one for one in fit.tensors}
    asked = {item.name: item.type.tensor_type for item in inputs}
    if asked.keys() != tensors.keys():
        wanted, got = (", ".join(sorted(names)) or "none" for names in (asked, tensors))
        cure = "name the arrays of the .npz as the inputs are named: numpy.savez(path, NAME=array, ...)"
        raise ConfigError(f"model {path}", expected=f"inputs {wanted}", got=f"arrays {got}", cure=cure)
    for name, source in asked.items():
        own, kind = tensors[name], "float32" if source.elem_type in _FLOATS else _dtype(source.elem_type)
        sides = [dim.dim_value for dim in source.shape.dim]
        fits = len(sides) == len(own.shape) + 1 and all(
            side in {0, size} for side, size in zip(sides[1:], own.shape, strict=True)
        )
        if not fits or kind != own.dtype:
            wanted = f"{kind} (batch, {', '.join(str(side or '?') for side in sides[1:])})"
            got, cure = f"{own.dtype} (samples, {', '.join(map(str, own.shape))})", "save it in this type and shape"
            raise ConfigError(f"model {path}: input {name}", expected=wanted, got=got, cure=cure)


def _dtype(kind: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(kind).name)


def _answers(
    proto: onnx.ModelProto, images: NDArray[np.uint8], preprocessing: Preprocessing, path: Path
) -> dict[str, NDArray[np.float32]]:
    """Run the user's own graph, in the batches, the layout and the type that it takes."""
    kinds = {item.name: helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type) for item in proto.graph.input}
    taken: NDArray[Any] = images
    if not isinstance(preprocessing, AsTheyAre):
        (kind,) = kinds.values()
        given = images if kind in {np.dtype(np.uint8), np.dtype(np.int32)} else normalise(images, preprocessing)
        taken = given.transpose(0, 2, 3, 1) if is_channels_last(proto, channels=images.shape[1]) else given
    size = fixed_batch(proto) or len(images)
    batches = [fed(taken[start : start + size], next(iter(kinds))) for start in range(0, len(images), size)]
    batches = [{name: np.ascontiguousarray(one[name]).astype(kinds[name]) for name in one} for one in batches]
    try:
        found = [run_reference(proto, one) for one in batches]
    except GraphError as error:
        shown = ", ".join(f"{kinds[name]} {one.shape}" for name, one in batches[0].items())
        expected = f"a graph that takes {shown}"
        raise ConfigError(f"model {path}", expected=expected, got=error.got or str(error), cure=_CURE) from error
    parts = {name: [one[name] for one in found] for name in found[0]}
    joined = {name: np.concatenate(some) if some[0].ndim else some[0] for name, some in parts.items()}  # else a scalar
    return {name: np.asarray(values, np.float32) for name, values in joined.items()}


def _require_same(own: onnx.ModelProto, images: NDArray[np.float32], expected: NDArray[np.float32], path: Path) -> None:
    """Compare what was made of a graph with the graph itself, on all images together and on one alone."""
    for count in (len(images), 1):
        what, wanted = f"model {path} with a free batch", expected[:count]
        try:
            got = flat(run_reference(own, fed(images[:count])).values())
        except GraphError as error:
            words = error.got or str(error)
            raise ConfigError(what, expected=f"a run of {count} images", got=words, cure=_CURE) from error
        moved = float(np.abs(got - wanted).max()) if got.shape == wanted.shape else float("inf")
        if not moved <= _TOLERANCE * float(np.abs(expected).max()):
            words = f"shape {got.shape}, largest difference {moved:.3g}"
            raise ConfigError(what, expected=f"its own logits of {count} images", got=words, cure=_CURE)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for item in (*graph.input, *graph.output, *graph.value_info):
        if item.name == old:
            item.name = new


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An ONNX file that no build of ours stands behind; `inputs` and `outputs` as `x: float32 (batch, 3, 32, 32)`."""

    path: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]
    weight_bytes: int
    is_quantized: bool
    build: str

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images it takes, where they are fixed; with the colours first or last."""
        shape = next(iter(self.inputs), "").rpartition("(")[2].rstrip(")").split(", ")
        sides = shape[1:3] if len(shape) == _RANK and shape[3] == _COLOURS != shape[1] else shape[2:]
        is_fixed = len(shape) == _RANK and all(side.isdigit() and int(side) for side in sides)
        return (int(sides[0]), int(sides[1])) if is_fixed else None


def describe_onnx(path: Path) -> Description:
    """Read what there is to say of a user's ONNX file, and the line that builds it, in a process with limits.

    Raises:
        ConfigError: it is no ONNX file, or it takes more memory or time than its size explains.
    """
    refuse_other_kinds(path)
    found = confined("trtbench.graph.given:_described", path)
    return Description(**{**found, **{key: tuple(found[key]) for key in ("inputs", "outputs")}})


def _described(path: Path) -> dict[str, Any]:
    proto = load_onnx(path)
    seen = view(proto)
    stored = {item.name for item in proto.graph.initializer}
    operators = Counter(node.op_type for node in proto.graph.node)
    found = Description(
        path=str(path),
        opset=seen.opset,
        inputs=tuple(_shown(item) for item in proto.graph.input if item.name not in stored),
        outputs=tuple(_shown(item) for item in proto.graph.output),
        operators=dict(operators.most_common()),
        weight_bytes=sum(array.nbytes for array in seen.constants.values()),
        is_quantized=bool(operators.keys() & QUANTIZERS),
        build=f"trtbench build --model onnx:{path} --data DATA --size PIXELS",
    )
    return dict(to_jsonable(found))


def _shown(item: onnx.ValueInfoProto) -> str:
    if item.type.WhichOneof("value") != "tensor_type":
        return f"{item.name}: {item.type.WhichOneof('value') or 'no type'}"
    tensor = item.type.tensor_type
    if tensor.elem_type == TensorProto.UNDEFINED:
        return f"{item.name}: no type"
    sizes = (str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    return f"{item.name}: {helper.tensor_dtype_to_np_dtype(tensor.elem_type)} ({', '.join(sizes)})"
