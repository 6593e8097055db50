"""A double of Ray, in this process: tasks run when they are waited for, one at a look, and may be made to die."""

from __future__ import annotations

import sys
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest


class RayError(Exception):
    """A process or a node died."""


class RayTaskError(RayError):
    """A task raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Ref:
    """What comes of a call; `run` is None once it is known."""

    def __init__(self, run: Callable[[], Any] | None, value: Any = None, kind: str = "") -> None:
        self.run, self.value, self.kind = run, value, kind


class _Remote:
    """A function whose calls wait, or a class whose objects answer at once."""

    def __init__(self, double: Ray, target: Any) -> None:
        self._double, self._target = double, target

    def options(self, **options: Any) -> _Remote:
        """Keep the options of the last task."""
        self._double.options.append(options)
        return self

    def remote(self, *arguments: Any, **named: Any) -> Any:
        """Call it."""
        if isinstance(self._target, type):
            return _Actor(self._target(*arguments))

        def run() -> Any:
            known = [self._double.get(one) if isinstance(one, _Ref) else one for one in arguments]
            return self._target(*known, **{key: self._known(value) for key, value in named.items()})

        return _Ref(run, kind=named.get("kind", ""))

    def _known(self, value: Any) -> Any:
        return self._double.get(value) if isinstance(value, _Ref) else value


class _Actor:
    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        return SimpleNamespace(remote=lambda *arguments: _Ref(None, method(*arguments)))


class Ray(ModuleType):
    """The module, of a cluster with these nodes: their resources by name, a core each.

    `dies` counts how often the task of a kind dies with its node; `at_wait` is called before each look.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__("ray")
        self.listed: list[dict[str, Any]] = [
            {"NodeID": name, "NodeName": name, "Alive": True, "Resources": {"CPU": 1.0, **own}, "Labels": {}}
            for name, own in nodes.items()
        ]
        self.options: list[dict[str, Any]] = []
        self.dies: Counter[str] = Counter()
        self.at_wait: Callable[[], None] = lambda: None
        self.refuses: Exception | None = None
        self.cancelled: list[Any] = []
        self.groups: list[Any] = []
        self.is_up = False
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self.util = ModuleType("ray.util")
        self.util.placement_group = self._group  # type: ignore[attr-defined]
        self.util.remove_placement_group = self.groups.remove  # type: ignore[attr-defined]
        self.util.placement_group_table = lambda group: {"bundles_to_node_id": {0: group.node}}  # type: ignore[attr-defined]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Be what `import ray` finds."""
        strategies = ModuleType("ray.util.scheduling_strategies")
        strategies.PlacementGroupSchedulingStrategy = lambda group, **_: group  # type: ignore[attr-defined]
        strategies.NodeAffinitySchedulingStrategy = lambda node, **_: node  # type: ignore[attr-defined]
        for module in (self, self.util, strategies):
            patch.setitem(sys.modules, module.__name__, module)

    def is_initialized(self) -> bool:
        """Whether somebody joined it."""
        return self.is_up

    def init(self, **_options: Any) -> None:
        """Join it."""
        if self.refuses is not None:
            raise self.refuses
        self.is_up = True

    def shutdown(self) -> None:
        """Leave it."""
        self.is_up = False

    def nodes(self) -> list[dict[str, Any]]:
        """List all nodes."""
        return self.listed

    def get_runtime_context(self) -> Any:
        """Say where this is: on the first node."""
        return SimpleNamespace(get_node_id=lambda: self.listed[0]["NodeID"])

    def remote(self, target: Any) -> _Remote:
        """Make a function or a class callable elsewhere."""
        return _Remote(self, target)

    def put(self, value: Any) -> _Ref:
        """Keep a value for all nodes."""
        return _Ref(None, value)

    def get(self, one: _Ref) -> Any:
        """Return what came of a call, which runs now if it did not."""
        self._settle(one)
        if isinstance(one.value, Exception):
            raise one.value
        return one.value

    def wait(self, pending: Sequence[_Ref], **_options: Any) -> tuple[list[_Ref], list[_Ref]]:
        """Let the first of them end, if it has a node."""
        self.at_wait()
        first = next((one for one in pending if one.run is None or self._has_node(one.kind)), None)
        if first is None:
            return [], [*pending]
        self._settle(first)
        return [first], [one for one in pending if one is not first]

    def cancel(self, one: _Ref, **_options: Any) -> None:
        """End a task."""
        self.cancelled.append(one)
        one.run, one.value = None, RayError("cancelled")

    def kill(self, _actor: Any) -> None:
        """End an actor."""

    def _has_node(self, kind: str) -> bool:
        return any(one["Alive"] and (not kind or kind == "cpu" or kind in one["Resources"]) for one in self.listed)

    def _settle(self, one: _Ref) -> None:
        run, one.run = one.run, None
        if run is None:
            return
        if self.dies[one.kind]:
            self.dies[one.kind] -= 1
            one.value = RayError("its node died")
            return
        try:
            one.value = run()
        except Exception as error:  # noqa: BLE001  it is raised where it is asked for
            one.value = RayTaskError(error)

    def _group(self, bundles: list[Any], *, bundle_label_selector: list[dict[str, str]], **_options: Any) -> Any:
        nodes = bundle_label_selector[0]["ray.io/node-id"].removeprefix("in(").removesuffix(")").split(", ")
        self.groups.append(group := SimpleNamespace(bundles=bundles, node=nodes[0]))
        return group
