"""Suites that come from no file: of one model and its options, and the text that `trtbench init` writes."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from trtbench.suite.engines import CalibrationConfig, ExportConfig
from trtbench.suite.parts import DataConfig, Suite
from trtbench.suite.read import validated

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.suite.base import AnyPart


def adhoc_suite(
    *,
    model: str,
    checkpoint: Path | None,
    data: DataConfig,
    precisions: tuple[str, ...] = ("fp32",),
    backend: str = "auto",
    export: ExportConfig | None = None,
    calibration: CalibrationConfig | None = None,
) -> Suite:
    """Return the suite that a single step on one trained model amounts to.

    Raises:
        ConfigError: an option cannot be.
    """
    weights = "" if checkpoint is None else f"-{hashlib.sha256(str(checkpoint.absolute()).encode()).hexdigest()[:8]}"
    raw = {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model}{weights}").strip("-."),
        "data": data.model_dump(),
        "model": {"name": model, "checkpoint": checkpoint},
        "variants": [{"kind": "dense", "name": "dense"}],
        "export": (export or ExportConfig()).model_dump(),
        "calibration": (calibration or CalibrationConfig()).model_dump(),
        "engines": [{"backend": backend, "precisions": precisions}],
        "bench": {"ort_placement": False, "baselines": []},
    }
    return validated(Suite, raw, origin="command line")


def options(part: type[AnyPart], /, **values: Any) -> AnyPart:
    """Validate one part of a suite that came as command-line options; None stands for the default.

    Raises:
        ConfigError: a value that cannot be, named as in the suite file.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return validated(part, given, origin="command line")


def suite_template(*, model: str, data: str, checkpoint: Path | None) -> str:
    """Return the text of a suite for this model and these images, commented and ready to edit.

    Paths are written as given: they are taken from the folder of the suite's file.
    """
    if model.startswith("onnx:"):
        return _TEMPLATE.format(model=json.dumps(model), data=json.dumps(data), weights="", variants="")
    augment = ", augment: {crop_padding: 2, flip: false}" if data == "digits" else ""
    weights = (
        f"\n  checkpoint: {json.dumps(str(checkpoint))}"
        if checkpoint is not None
        else f"\n  train: {{epochs: 100, lr: 0.1, schedule: one-cycle{augment}}}"
    )
    variants = _TEMPLATE_VARIANTS.format(augment=augment)
    return _TEMPLATE.format(model=json.dumps(model), data=json.dumps(data), weights=weights, variants=variants)


_TEMPLATE = """\
# trtbench suite; `trtbench schema` says what every key takes.
name: my-suite

data:
  source: {data}
  validation: 0.1              # share of the training images held out

model:
  name: {model}{weights}

variants:
  - {{kind: dense, name: dense}}
{variants}
calibration: {{per_class: 50, method: entropy}}

engines:
  - {{backend: auto, precisions: [fp32, int8]}}

decision: {{max_drop_pp: 1.0, objective: p50_ms, batch_size: 1}}
"""
_TEMPLATE_VARIANTS = """\
  - {{kind: dense, name: dense-tuned, fine_tune: true}}   # the control: same budget, nothing pruned
  - {{kind: channels, name: channels-30, ratio: 0.3}}
  - {{kind: channels, name: channels-50, ratio: 0.5}}

fine_tune: {{epochs: 10, lr: 0.01{augment}}}   # one budget for every variant
"""
