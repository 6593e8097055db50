"""Every TensorRT name, method and keyword that trtbench uses exists in both majors, or is asked for first."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import api_usage
import pytest
from api_usage import Package, faults
from simulated_tensorrt.facts import signature

import trtbench

_TESTS = Path(__file__).parents[1]
_APIS: dict[str, Any] = {
    version: json.loads((_TESTS / "doubles" / "api" / f"tensorrt-{version}.json").read_text(encoding="utf-8"))
    for version in ("10.16", "11.4")
}
_STUB = _TESTS / "stubs" / "tensorrt" / "__init__.pyi"
_BUILD = "import tensorrt as trt\ndef f(builder: trt.Builder, network: trt.INetworkDefinition):\n"


def _faults(body: str) -> list[str]:
    text = _BUILD + "".join(f"    {line}\n" for line in body.splitlines())
    return list(faults(Package.of({"snippet.py": text}), _APIS))


def test_trtbench_uses_only_what_both_majors_have_or_what_it_asked_for() -> None:
    found = faults(Package.at(Path(trtbench.__file__).parent), _APIS)

    # TensorRT for RTX is a library of its own: tests/rtx holds its room to the real one.
    assert [one for one in found if not one.startswith("engines/tensorrt_rtx/")] == []


def test_trtbench_binds_trt_to_the_module_alone() -> None:
    assert list(Package.at(Path(trtbench.__file__).parent).misbound()) == []


def test_the_walk_sees_the_backend() -> None:
    api_usage.know(_APIS.values())

    owners = {use.owner for use in Package.at(Path(trtbench.__file__).parent).uses()}

    assert {"", "Builder", "IBuilderConfig", "OnnxParser", "IExecutionContext", "ICudaEngine"} <= owners


@pytest.mark.parametrize(
    "body",
    [
        "trt.BuilderFlag.TF32",
        "config = builder.create_builder_config()\nconfig.set_flag(trt.BuilderFlag.TF32)",
        "trt.OnnxParser(network, builder.logger).parse(b'', path='x.onnx')",
        "builder.create_network(flags=1)",
        "trt.Logger(trt.Logger.WARNING).log(trt.Logger.Severity.ERROR, 'x')",
        "if hasattr(trt, 'IInt8EntropyCalibrator2'):\n    trt.IInt8EntropyCalibrator2",
        "if hasattr(trt.BuilderFlag, 'FP16'):\n    trt.BuilderFlag.FP16",
        "if not able.has_calibrator:\n    return\nbuilder.create_builder_config().int8_calibrator = None",
        "x = trt.BuilderFlag.INT8 if able.has_weak_typing else None",
        "able.has_calibrator = hasattr(trt, 'x')",
    ],
)
def test_a_use_of_both_majors_or_a_guarded_one_passes(body: str) -> None:
    assert _faults(body) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("trt.BuilderFlag.TF23", "no such member"),
        ("trt.Bulider(None)", "no such name"),
        ("builder.make_network()", "no such member"),
        ("builder.create_network(flag=1)", "called with 0 arguments and ['flag']"),
        ("builder.create_network(1, 2)", "called with 2 arguments"),
        ("builder.build_serialized_network(network)", "called with 1 arguments"),
        ("trt.OnnxParser(network)", "called with 1 arguments"),
        ("c = builder.create_builder_config()\nc.create_timing_cache()", "called with 0 arguments"),
        ("trt.IInt8EntropyCalibrator2", "11.4: no such name"),
        ("trt.BuilderFlag.FP16", "11.4: no such member"),
        ("c = builder.create_builder_config()\nc.int8_calibrator = None", "11.4: no such member"),
        ("class C(trt.IInt8MinMaxCalibrator): pass", "11.4: no such name"),
        ("if hasattr(trt, 'A'):\n    pass\nelse:\n    trt.IInt8Calibrator", "11.4: no such name"),
        ("if not able.has_calibrator:\n    trt.IInt8Calibrator", "11.4: no such name"),
        ("trt.nptype(trt.float32, 1)", "called with 2 arguments"),
        ("if hasattr(trt, 'X'):\n    trt.BuilderFlag.NOWHERE", "no such member"),
    ],
)
def test_a_wrong_name_or_call_or_one_of_one_major_fails(body: str, told: str) -> None:
    (fault,) = _faults(body)

    assert told in fault


def test_types_are_followed_through_fields_and_functions_of_other_modules() -> None:
    package = Package.of(
        {
            "a.py": "class P:\n    network: trt.INetworkDefinition\ndef make() -> trt.Runtime: ...\n",
            "b.py": "from a import make\ndef f(p: P):\n    p.network.get_inputs()\n    make().deserialize(b'')\n",
        }
    )

    found = list(faults(package, _APIS))

    assert [each.partition(" (")[0] for each in found] == [
        "b.py:3: INetworkDefinition.get_inputs",
        "b.py:4: Runtime.deserialize",
    ]


def test_a_function_is_guarded_where_all_its_calls_are() -> None:
    guarded = "def g(able, trt_config):\n    if able.has_calibrator:\n        h(trt_config)\n"
    inner = "import tensorrt as trt\ndef h(c: trt.IBuilderConfig):\n    c.set_calibration_profile(None)\n"
    once = Package.of({"a.py": inner + guarded})
    twice = Package.of({"a.py": inner + guarded + "def k(c):\n    h(c)\n"})

    assert list(faults(once, _APIS)) == []
    assert len(list(faults(twice, _APIS))) == 1


@pytest.mark.parametrize(
    "text", ["trt = 3", "def f(trt): ...", "for trt in (): ...", "import tensorrt", "from x import y as trt"]
)
def test_another_binding_of_trt_is_found(text: str) -> None:
    assert list(Package.of({"a.py": text}).misbound()) == ["a.py:1"]


@pytest.mark.parametrize("text", ["import tensorrt as trt", "trt: Any = load('tensorrt')"])
def test_the_module_itself_may_be_bound(text: str) -> None:
    assert list(Package.of({"a.py": text}).misbound()) == []


def _stub_members() -> dict[str, dict[str, tuple[str, ...] | None]]:
    """Read the stub: by class its members, methods with the names of their parameters."""
    tree = ast.parse(_STUB.read_text(encoding="utf-8"))
    found: dict[str, dict[str, tuple[str, ...] | None]] = {"": {}}

    def read(body: list[ast.stmt], into: dict[str, tuple[str, ...] | None], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                is_property = any(ast.unparse(each) == "property" for each in node.decorator_list)
                given = [*node.args.posonlyargs, *node.args.args]
                into[node.name] = None if is_property else tuple(each.arg for each in given if each.arg != "self")
            elif isinstance(node, ast.AnnAssign):
                into[ast.unparse(node.target)] = None
            elif isinstance(node, ast.ClassDef):
                found[prefix + node.name] = {}
                read(node.body, found[prefix + node.name], f"{prefix}{node.name}.")

    read(tree.body, found[""], "")
    return found


_PROTOCOL = {"__iter__", "__hash__", "__eq__", "__buffer__", "__init__", "__getitem__", "__len__", "__members__"}


def test_the_stub_has_the_union_of_the_two_majors() -> None:
    stub = _stub_members()
    classes = {name for api in _APIS.values() for name in api["classes"]}

    assert {name for name in stub if name not in {"", "_Enum"}} == classes
    for name in classes:
        facts = [api["classes"][name] for api in _APIS.values() if name in api["classes"]]
        wanted = {
            each
            for fact in facts
            for part in ("enum", "properties", "methods", "attributes")
            for each in fact.get(part, ())
        }
        own = {each for each in wanted if not each.startswith("MAX_")}
        assert set(stub[name]) - _PROTOCOL - {"ERROR", "INFO"} >= own - _PROTOCOL - {"ERROR", "INFO"} - _inherited(name)
        assert set(stub[name]) - _PROTOCOL <= wanted, name


def _inherited(name: str) -> set[str]:
    return {"ERROR", "INFO", "INTERNAL_ERROR", "VERBOSE", "WARNING"} if name == "Logger" else set()


def test_the_stubs_methods_take_what_the_libraries_take() -> None:
    for name, members in _stub_members().items():
        for method, parameters in members.items():
            forms = [
                tuple(each.name for each in signature(form))
                for api in _APIS.values()
                for form in api["classes"].get(name, {}).get("methods", {}).get(method, ())
            ]
            if parameters is not None and forms and method not in _PROTOCOL:
                assert parameters in forms, f"{name}.{method}{parameters} is none of {forms}"


def test_what_only_one_major_has_says_so_in_the_stub() -> None:
    lines = _STUB.read_text(encoding="utf-8").splitlines()
    marked = {
        line.split()[0].rstrip(":") for line in lines if line.endswith("# 10 only") and "ClassVar[BuilderFlag]" in line
    }
    old, new = (set(api["classes"]["BuilderFlag"]["enum"]) for api in _APIS.values())

    assert marked == old - new
