"""What a sidecar keeps of a build: names, never numbers, and a `trtexec` line that makes the same engine."""

from __future__ import annotations

import json
import platform
import shlex
from pathlib import Path

import pytest

from trtbench.engines.base import BuildOptions, BuildRequest, CalibrationImages
from trtbench.engines.cuda.device import DeviceFacts
from trtbench.engines.tensorrt.inspector import LayerReport
from trtbench.engines.tensorrt.library import Abilities
from trtbench.engines.tensorrt.plan import build_facts, host_facts, layer_facts, trtexec_line
from trtbench.engines.tensorrt.precision import PrecisionPlan, plan_precision
from trtbench.records import Preprocessing

_TEN = Abilities(version="10.16.1.11", has_calibrator=True, has_weak_typing=True)


def _plan(precision: str, options: BuildOptions | None = None) -> PrecisionPlan:
    return plan_precision(precision, abilities=_TEN, options=options or BuildOptions(), compute_capability=(8, 0))


def _profile(batch: int) -> dict[str, list[list[int]]]:
    return {"input": [[batch, 3, 32, 32]] * 3}


def _request(
    precision: str, options: BuildOptions | None = None, calibration: CalibrationImages | None = None
) -> BuildRequest:
    return BuildRequest(
        source=Path("store/a b/model.onnx"),
        engine=Path("engines/dense.plan"),
        precision=precision,
        options=options or BuildOptions(),
        calibration=calibration,
    )


def _line(precision: str, options: BuildOptions | None = None, *batches: int, is_strong: bool = False) -> list[str]:
    return shlex.split(
        trtexec_line(
            _request(precision, options),
            _plan(precision, options),
            profiles=[_profile(batch) for batch in batches or (1,)],
            is_strong_by_default=is_strong,
            timing_cache=None,
        )
    )


def test_a_strongly_typed_engine_is_built_by_its_flag_on_10_and_without_on_11() -> None:
    assert "--stronglyTyped" in _line("fp16")
    assert "--stronglyTyped" not in _line("fp16", is_strong=True)
    assert not {"--fp16", "--int8"} & set(_line("int8+fp16"))


def test_tf32_is_switched_off_unless_it_was_asked_for() -> None:
    assert "--noTF32" in _line("fp32")
    assert "--noTF32" not in _line("tf32")


def test_paths_with_spaces_survive_the_shell() -> None:
    assert "--onnx=store/a b/model.onnx" in _line("fp32")


def test_one_profile_needs_no_number_and_several_have_one_each() -> None:
    shapes = ["--minShapes=input:8x3x32x32", "--optShapes=input:8x3x32x32", "--maxShapes=input:8x3x32x32"]

    alone, several = _line("fp32", None, 8), _line("fp32", None, 1, 8)

    assert [part for part in alone if "Shapes" in part] == shapes
    assert not [part for part in alone if part.startswith("--profile=")]
    assert several[several.index("--profile=1") + 1 :][:3] == shapes


def test_every_option_of_the_build_is_in_the_line() -> None:
    options = BuildOptions(
        workspace_mib=512, optimization_level=5, sparse=True, hardware_compatible=True, version_compatible=True
    )

    line = _line("fp16", options)

    assert {
        "--memPoolSize=workspace:512",
        "--builderOptimizationLevel=5",
        "--sparsity=enable",
        "--hardwareCompatibilityLevel=ampere+",
        "--versionCompatible",
        "--saveEngine=engines/dense.plan",
    } <= set(line)


def test_an_implicit_engine_is_built_from_its_calibration_cache() -> None:
    images = CalibrationImages(
        images=Path("images.npy"),
        preprocessing=Preprocessing(mean=(0.5,), std=(0.5,), size=32),
        batch_size=10,
        algorithm="entropy",
        cache=Path("caches/key.cache"),
    )

    line = trtexec_line(
        _request("int8-implicit+fp16", calibration=images),
        _plan("int8-implicit+fp16"),
        profiles=[_profile(1)],
        is_strong_by_default=False,
        timing_cache=Path("timing/one.timing"),
    )

    assert {"--int8", "--fp16", "--calib=caches/key.cache", "--timingCacheFile=timing/one.timing"} <= set(line.split())
    assert "--stronglyTyped" not in line


def test_facts_of_a_build_are_json_and_hold_names_only() -> None:
    options = BuildOptions(sparse=True, hardware_compatible=True)

    facts = build_facts(_plan("fp32", options), options, profiles=(_profile(1), _profile(8)))

    assert json.loads(json.dumps(facts)) == facts
    assert facts["flags"] == ["SPARSE_WEIGHTS"]
    assert facts["cleared_flags"] == ["TF32"]
    assert facts["strongly_typed"] is True
    assert facts["hardware_compatibility"] == "AMPERE_PLUS"
    assert facts["profiles"][1]["input"][0] == [8, 3, 32, 32]


@pytest.mark.parametrize(("uuid", "is_slice"), [("GPU-1", False), ("MIG-1", True)])
def test_facts_of_a_host_name_all_that_a_number_depends_on(uuid: str, is_slice: bool) -> None:  # noqa: FBT001  a case
    device = DeviceFacts(
        name="NVIDIA L4",
        uuid=uuid,
        compute_capability=(8, 9),
        driver="570.10",
        runtime="12.8",
    )

    assert host_facts(device, version="10.16.1.11") == {
        "tensorrt": "10.16.1.11",
        "gpu": "NVIDIA L4",
        "uuid": uuid,
        "is_mig_slice": is_slice,
        "sm": "8.9",
        "driver": "570.10",
        "cuda": "12.8",
        "os": platform.system(),
        "arch": platform.machine(),
    }


def test_fused_quantizers_are_those_that_became_no_layer_of_their_own() -> None:
    report = LayerReport(
        layers=9,
        by_precision={"int8": 3},
        convolutions={"conv1": "int8"},
        reformats=1,
        unfused=2,
        weight_bytes=None,
        is_detailed=True,
    )

    facts = layer_facts(report, quantizers=12)

    assert (facts["quantizers"], facts["fused_quantizers"], facts["unfused"]) == (12, 10, 2)
    assert facts["convolutions"] == {"conv1": "int8"}
    assert layer_facts(report, quantizers=1)["fused_quantizers"] == 0
