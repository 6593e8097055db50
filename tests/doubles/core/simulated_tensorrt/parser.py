"""Reads an ONNX model into a network, or says node by node why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from . import callbacks, rules
from .strict import Made, Managed, kinds, strict


@strict("ParserError")
class ParserError(Made):
    """Why the parser refused; all of it is read by methods."""

    def _setup(self, refusal: rules.Refusal) -> None:
        self._refusal = refusal

    def code(self) -> Any:
        return kinds.ErrorCode.__members__[self._refusal.code]

    def desc(self) -> str:
        return self._refusal.text

    def file(self) -> str:
        return "onnxOpCheckers.cpp" if self._refusal.code == "UNSUPPORTED_NODE" else "ModelImporter.cpp"

    def func(self) -> str:
        return f"check{self._refusal.operator}" if self._refusal.code == "UNSUPPORTED_NODE" else "parseNode"

    def line(self) -> int:
        return 1

    def node(self) -> int:
        return self._refusal.node

    def node_name(self) -> str:
        return self._refusal.name

    def node_operator(self) -> str:
        return self._refusal.operator


@strict("OnnxParser")
class OnnxParser(Managed):
    """Fills one network."""

    flags: int = 0

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index] if 0 <= index < len(self._errors) else None

    def clear_errors(self) -> None:
        self._errors = []

    def set_flag(self, flag: Any) -> None:
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def set_builder_config(self, builder_config: Any) -> bool:
        self._config = builder_config
        return True

    def supports_operator(self, op_name: str) -> bool:
        return rules.supports(op_name)

    def supports_model_v2(self, model: Any, path: str | None = None) -> bool:
        return self._read(bytes(model), path) is not None

    def parse(self, model: Any, path: str | None = None) -> bool:
        if self._network._model is not None:
            callbacks.error(self._logger, "the network is filled already")
            return False
        read = self._read(bytes(model), path)
        if read is not None:
            self._network._fill(read)
        return read is not None

    def parse_from_file(self, model: str) -> bool:
        if not Path(model).is_file():
            self._refuse(rules.Refusal("INVALID_VALUE", f"Failed to open the ONNX model: {model}"))
            return False
        return self.parse(Path(model).read_bytes(), model)

    def _read(self, model: bytes, path: str | None) -> onnx.ModelProto | None:
        loaded = self._loaded(model, path)
        if loaded is None:
            return None
        found = list(rules.refusals(loaded))
        for each in found:
            self._refuse(each)
        return None if found else loaded

    def _loaded(self, model: bytes, path: str | None) -> onnx.ModelProto | None:
        try:
            proto = onnx.load_model_from_string(model)
        except DecodeError:
            words = "Assertion failed: model->ParseFromCodedStream(&codedInput): Failed to parse the ONNX model."
            self._refuse(rules.Refusal("MODEL_DESERIALIZE_FAILED", words))
            return None
        if not _has_external(proto):
            return proto
        folder = Path(path).parent if path is not None else Path.cwd()
        try:
            onnx.load_external_data_for_model(proto, str(folder))
        except (OSError, onnx.checker.ValidationError) as error:
            self._refuse(rules.Refusal("INVALID_GRAPH", f"Failed to open the weights file: {error}"))
            return None
        return proto

    def _refuse(self, refusal: rules.Refusal) -> None:
        self._errors.append(ParserError._of(refusal))
        where = f"In node {refusal.node} with name: {refusal.name} and operator: {refusal.operator}: "
        callbacks.error(self._logger, f"{where if refusal.node >= 0 else ''}{refusal.code}: {refusal.text}")


def _has_external(model: onnx.ModelProto) -> bool:
    return any(each.data_location == onnx.TensorProto.EXTERNAL for each in model.graph.initializer)
