"""The suite: one file that asks the question, validated once, at the edge."""

from __future__ import annotations

from trtbench.suite.ask import adhoc_suite, options, suite_template
from trtbench.suite.parts import (
    ZOO,
    AugmentConfig,
    BenchConfig,
    CalibrationConfig,
    ChannelsVariant,
    DataConfig,
    DecisionConfig,
    DenseVariant,
    DistillConfig,
    EngineConfig,
    ExportConfig,
    LoadConfig,
    Method,
    ModelConfig,
    Objective,
    Precision,
    Suite,
    TrainConfig,
    Variant,
)
from trtbench.suite.read import load_suite, parse_suite, shipped_suites

__all__ = [
    "ZOO",
    "AugmentConfig",
    "BenchConfig",
    "CalibrationConfig",
    "ChannelsVariant",
    "DataConfig",
    "DecisionConfig",
    "DenseVariant",
    "DistillConfig",
    "EngineConfig",
    "ExportConfig",
    "LoadConfig",
    "Method",
    "ModelConfig",
    "Objective",
    "Precision",
    "Suite",
    "TrainConfig",
    "Variant",
    "adhoc_suite",
    "load_suite",
    "options",
    "parse_suite",
    "shipped_suites",
    "suite_template",
]
