"""The suite: one file that asks the question, validated once, at the edge."""

from __future__ import annotations

from trtbench.suite.base import options as options
from trtbench.suite.engines import BACKENDS as BACKENDS
from trtbench.suite.engines import BackendEntry as BackendEntry
from trtbench.suite.engines import CalibrationConfig as CalibrationConfig
from trtbench.suite.engines import EngineConfig as EngineConfig
from trtbench.suite.engines import ExportConfig as ExportConfig
from trtbench.suite.engines import Method as Method
from trtbench.suite.inputs import ZOO as ZOO
from trtbench.suite.inputs import AugmentConfig as AugmentConfig
from trtbench.suite.inputs import DataConfig as DataConfig
from trtbench.suite.inputs import DistillConfig as DistillConfig
from trtbench.suite.inputs import ModelConfig as ModelConfig
from trtbench.suite.inputs import TrainConfig as TrainConfig
from trtbench.suite.read import Proposal as Proposal
from trtbench.suite.read import load_suite as load_suite
from trtbench.suite.read import parse_suite as parse_suite
from trtbench.suite.read import shipped_suites as shipped_suites
from trtbench.suite.read import suite_template as suite_template
from trtbench.suite.suite import BenchConfig as BenchConfig
from trtbench.suite.suite import DecisionConfig as DecisionConfig
from trtbench.suite.suite import LoadConfig as LoadConfig
from trtbench.suite.suite import Objective as Objective
from trtbench.suite.suite import Suite as Suite
from trtbench.suite.suite import adhoc_suite as adhoc_suite
from trtbench.suite.suite import suite_schema as suite_schema
from trtbench.suite.variants import KINDS as KINDS
from trtbench.suite.variants import VARIANT_KINDS as VARIANT_KINDS
from trtbench.suite.variants import ChannelsVariant as ChannelsVariant
from trtbench.suite.variants import CodecVariant as CodecVariant
from trtbench.suite.variants import DenseVariant as DenseVariant
from trtbench.suite.variants import DynamicInt8Variant as DynamicInt8Variant
from trtbench.suite.variants import FixedPointVariant as FixedPointVariant
from trtbench.suite.variants import NmVariant as NmVariant
from trtbench.suite.variants import QatVariant as QatVariant
from trtbench.suite.variants import StrippedVariant as StrippedVariant
from trtbench.suite.variants import Variant as Variant
from trtbench.suite.variants import VariantPart as VariantPart
from trtbench.suite.variants import WeightsVariant as WeightsVariant
from trtbench.suite.variants import one_of as one_of
