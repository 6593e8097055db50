"""TensorRT as its Python API shows it, for one major or for RTX at a time: what that lacks is not there.

It holds clients to the orders and the failures of the real library and computes with ONNX Runtime on the CPU. It says
nothing about speed or about the numbers of a real engine.
"""

from __future__ import annotations

import importlib
from typing import Any

_ROOMS = (
    "values",
    "callbacks",
    "network",
    "parser",
    "config",
    "timing_cache",
    "builder",
    "jit",
    "engine",
    "context",
    "inspector",
    "runtime",
)


def assemble(namespace: dict[str, Any], *, api: str) -> None:
    """Fill a module's namespace with what one major's Python API has.

    Args:
        namespace: of the module to be `tensorrt`.
        api: the name of the file of facts, such as "tensorrt-10.16.json".

    Raises:
        ImportError: when another major is loaded in this process already.
    """
    from . import facts, strict

    facts.load(api)
    strict.make_enums()
    for room in _ROOMS:
        importlib.import_module(f"{__name__}.{room}")
    from . import functions

    namespace |= {name: kind for name, kind in strict.registry.items() if "." not in name}
    namespace |= {name: getattr(functions, name) for name in facts.current().functions}
    namespace |= {name: functions.constant(name) for name in facts.current().constants}
    namespace["__version__"] = facts.current().version
    namespace["IS_SIMULATED"] = True  # the one name the real library does not have
