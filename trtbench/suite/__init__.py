"""The suite: one file that asks the question, validated once, at the edge."""

from __future__ import annotations

from trtbench.suite.base import options
from trtbench.suite.engines import (
    BACKENDS,
    BackendEntry,
    CalibrationConfig,
    EngineConfig,
    ExportConfig,
    Method,
)
from trtbench.suite.inputs import ZOO, AugmentConfig, DataConfig, DistillConfig, ModelConfig, TrainConfig
from trtbench.suite.read import Proposal, load_suite, parse_suite, shipped_suites, suite_template
from trtbench.suite.suite import BenchConfig, DecisionConfig, LoadConfig, Objective, Suite, adhoc_suite, suite_schema
from trtbench.suite.variants import (
    KINDS,
    VARIANT_KINDS,
    ChannelsVariant,
    CodecVariant,
    DenseVariant,
    DynamicInt8Variant,
    FixedPointVariant,
    NmVariant,
    QatVariant,
    StrippedVariant,
    Variant,
    VariantPart,
    WeightsVariant,
    one_of,
)

__all__ = [
    "BACKENDS",
    "KINDS",
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
    "Proposal",
    "QatVariant",
    "StrippedVariant",
    "Suite",
    "TrainConfig",
    "Variant",
    "VariantPart",
    "WeightsVariant",
    "adhoc_suite",
    "load_suite",
    "one_of",
    "options",
    "parse_suite",
    "shipped_suites",
    "suite_schema",
    "suite_template",
]
