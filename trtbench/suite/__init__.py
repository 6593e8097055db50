"""The suite: one file that asks the question, validated once, at the edge."""

from __future__ import annotations

from trtbench.suite.ask import adhoc_suite, options, suite_template
from trtbench.suite.engines import (
    BACKENDS,
    BackendEntry,
    CalibrationConfig,
    EngineConfig,
    ExportConfig,
    Method,
    Precision,
)
from trtbench.suite.parts import (
    VARIANT_KINDS,
    ZOO,
    BenchConfig,
    DataConfig,
    DecisionConfig,
    LoadConfig,
    ModelConfig,
    Objective,
    Suite,
    Variant,
)
from trtbench.suite.quantized import GRAPH_KINDS, CodecVariant, DynamicInt8Variant, FixedPointVariant, QatVariant
from trtbench.suite.read import load_suite, parse_suite, shipped_suites
from trtbench.suite.training import AugmentConfig, DistillConfig, TrainConfig
from trtbench.suite.variants import ChannelsVariant, DenseVariant, NmVariant, VariantPart, WeightsVariant

__all__ = [
    "BACKENDS",
    "GRAPH_KINDS",
    "VARIANT_KINDS",
    "ZOO",
    "AugmentConfig",
    "BackendEntry",
    "BenchConfig",
    "CalibrationConfig",
    "ChannelsVariant",
    "CodecVariant",
    "DataConfig",
    "DecisionConfig",
    "DenseVariant",
    "DistillConfig",
    "DynamicInt8Variant",
    "EngineConfig",
    "ExportConfig",
    "FixedPointVariant",
    "LoadConfig",
    "Method",
    "ModelConfig",
    "NmVariant",
    "Objective",
    "Precision",
    "QatVariant",
    "Suite",
    "TrainConfig",
    "Variant",
    "VariantPart",
    "WeightsVariant",
    "adhoc_suite",
    "load_suite",
    "options",
    "parse_suite",
    "shipped_suites",
    "suite_template",
]
