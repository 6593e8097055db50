"""What a package uses of TensorRT, read from its source, and whether both majors' APIs have it.

Types are followed from annotations (`config: trt.IBuilderConfig`), from factories and from what methods return. A use
that only one major has must stand behind a question for it: `hasattr`, or one of the named abilities.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from simulated_tensorrt.facts import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Api = dict[str, Any]

# What the backend asks instead of `hasattr` itself; `library.Abilities` and `PrecisionPlan` say what they stand for.
ABILITIES = frozenset({"has_calibrator", "has_weak_typing", "needs_calibrator"})
_OURS = frozenset({"IS_SIMULATED"})  # the one name of the doubles that no TensorRT has
_MODULE = "trt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One name used: of the module (`owner` is ""), or of an object of a class."""

    where: str
    owner: str
    name: str
    call: ast.Call | None
    is_guarded: bool

    def __str__(self) -> str:
        return f"{self.where}: {self.owner or 'tensorrt'}.{self.name}"


@dataclass(slots=True)
class Package:
    """The sources, and what one module can learn of another.

    Args:
        trees: the parsed modules by name.
        own: the package's classes: the types of their fields and properties.
        returns: the types that functions give back.
        guarded_functions: functions that only guarded places call.
    """

    trees: dict[str, ast.Module]
    own: dict[str, dict[str, str]] = field(default_factory=dict)
    returns: dict[str, str] = field(default_factory=dict)
    guarded_functions: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, sources: dict[str, str]) -> Package:
        """Read sources by name."""
        package = cls({name: ast.parse(text) for name, text in sources.items()})
        nodes = [node for tree in package.trees.values() for node in ast.walk(tree)]
        package.own = {node.name: {} for node in nodes if isinstance(node, ast.ClassDef)}
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                package._learn_class(node)
            if isinstance(node, ast.FunctionDef) and (kind := package.named_class(node.returns)):
                package.returns[node.name] = kind
        package._find_guarded()
        return package

    @classmethod
    def at(cls, folder: Path) -> Package:
        """Read the modules of a folder that speak of TensorRT's module, or live in a room of its name."""
        texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
        return cls.of(
            {
                str(path.relative_to(folder)): text
                for path, text in texts.items()
                if path.parent.name == "tensorrt" or re.search(r"\btrt\b", text)
            }
        )

    def _learn_class(self, node: ast.ClassDef) -> None:
        fields = self.own[node.name]
        for each in ast.walk(node):
            if isinstance(each, ast.AnnAssign) and (kind := self.named_class(each.annotation)):
                fields[ast.unparse(each.target).removeprefix("self.")] = kind
            if isinstance(each, ast.FunctionDef):
                if kind := self.named_class(each.returns):
                    fields[each.name] = kind
                self._learn_from_init(each, fields)

    def _learn_from_init(self, function: ast.FunctionDef, fields: dict[str, str]) -> None:
        """`self._engine = engine` gives the field the parameter's type."""
        known = self.parameter_classes(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in known:
                for target in node.targets:
                    if isinstance(target, ast.Attribute):
                        fields.setdefault(target.attr, known[node.value.id])

    def _find_guarded(self) -> None:
        """A function is guarded when each of its calls is: repeat until nothing changes."""
        before: set[str] | None = None
        while before != self.guarded_functions:
            before = set(self.guarded_functions)
            calls: dict[str, list[bool]] = {}
            for name, tree in self.trees.items():
                for call, is_guarded in _Walk(self, name).calls(tree):
                    calls.setdefault(call, []).append(is_guarded)
            self.guarded_functions = {name for name, states in calls.items() if all(states)}

    def uses(self) -> Iterator[Use]:
        """List all uses of TensorRT."""
        for name, tree in self.trees.items():
            yield from _Walk(self, name).uses(tree)

    def misbound(self) -> Iterator[str]:
        """Name the places that bind `trt` to anything but the module."""
        for name, tree in self.trees.items():
            yield from (f"{name}:{line}" for line in _misbound(tree))

    def named_class(self, annotation: ast.expr | None) -> str | None:
        """Read the class of an annotation such as `trt.ICudaEngine | None`; those of the package get a dot before."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self.named_class(ast.parse(annotation.value, mode="eval").body)
        if isinstance(annotation, ast.BinOp):
            return self.named_class(annotation.left) or self.named_class(annotation.right)
        if isinstance(annotation, ast.Name) and annotation.id in self.own:
            return f".{annotation.id}"
        return ".".join(module_chain(annotation)) or None if annotation is not None else None

    def parameter_classes(self, function: ast.FunctionDef) -> dict[str, str]:
        """Give the parameters whose annotation is a class that is known."""
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        return {each.arg: kind for each in given if (kind := self.named_class(each.annotation))}


def module_chain(node: ast.expr) -> tuple[str, ...]:
    """Give the names after `trt` in `trt.A.B`; nothing for other expressions."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return tuple(names) if isinstance(node, ast.Name) and node.id == _MODULE else ()


@dataclass(slots=True)
class _Walk:
    """Goes through one module with what is known of its names."""

    package: Package
    name: str
    types: dict[str, str] = field(default_factory=dict)

    def uses(self, tree: ast.Module) -> Iterator[Use]:
        for node, place in _positions(tree, self.package):
            self.types = place.types
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
                self._bind(node)
            if isinstance(node, ast.Attribute):
                yield from self._of(node, place.parent, is_guarded=place.is_guarded)

    def calls(self, tree: ast.Module) -> Iterator[tuple[str, bool]]:
        for node, place in _positions(tree, self.package):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", None)
                if name is not None:
                    yield name, place.is_guarded

    def _of(self, node: ast.Attribute, parent: ast.AST | None, *, is_guarded: bool) -> Iterator[Use]:
        call = parent if isinstance(parent, ast.Call) and parent.func is node else None
        where = f"{self.name}:{node.lineno}"
        chain = module_chain(node)
        if chain:
            owner = ".".join(chain[:-1])
            owner = {"Logger.Severity": "ILogger.Severity"}.get(owner, owner)
            yield Use(where=where, owner=owner, name=chain[-1], call=call, is_guarded=is_guarded)
            return
        kind = self.kind(node.value)
        if kind is not None and not kind.startswith("."):
            yield Use(where=where, owner=kind, name=node.attr, call=call, is_guarded=is_guarded)

    def _bind(self, node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        kind = self.package.named_class(node.annotation) if isinstance(node, ast.AnnAssign) else None
        kind = kind or (self.kind(node.value) if node.value is not None else None)
        for target in targets:
            if isinstance(target, ast.Name):
                self.types.pop(target.id, None)
                if kind is not None:
                    self.types[target.id] = kind

    def kind(self, node: ast.expr) -> str | None:
        """Give the TensorRT class of an expression's value, where it is known."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.Call):
            return self._returned(node)
        if isinstance(node, ast.Attribute) and not module_chain(node):
            return self._member(self.kind(node.value), node.attr, of=property_class)
        chain = module_chain(node)
        return chain[0] if len(chain) > 1 and chain[0] in BOTH else None

    def _returned(self, call: ast.Call) -> str | None:
        chain = module_chain(call.func)
        if chain:
            return ".".join(chain) if len(chain) == 1 and chain[0] in BOTH else None
        if isinstance(call.func, ast.Name):
            own = call.func.id
            return f".{own}" if own in self.package.own else self.package.returns.get(own)
        if isinstance(call.func, ast.Attribute):
            return self._member(self.kind(call.func.value), call.func.attr, of=returned_class)
        return None

    def _member(self, owner: str | None, name: str, *, of: Callable[[str, str], str | None]) -> str | None:
        if owner is None:
            return None
        return self.package.own[owner[1:]].get(name) if owner.startswith(".") else of(owner, name)


BOTH: dict[str, list[Any]] = {}


def know(apis: Iterable[Api]) -> None:
    """Learn the classes of the APIs: what their members are."""
    BOTH.clear()
    for api in apis:
        for name, fact in api["classes"].items():
            BOTH.setdefault(name, []).append(fact)


def property_class(owner: str, name: str) -> str | None:
    """Give the class of an object's property."""
    kinds = {fact["properties"].get(name, "") for fact in BOTH.get(owner, []) if "properties" in fact}
    return _known({kind.removesuffix(" (read only)") for kind in kinds})


def returned_class(owner: str, method: str) -> str | None:
    """Give the class of what an object's method returns."""
    forms = [each for fact in BOTH.get(owner, []) for each in fact.get("methods", {}).get(method, [])]
    return _known({each.rpartition("-> ")[2] for each in forms})


def _known(kinds: set[str]) -> str | None:
    return next((kind for kind in sorted(kinds) if kind in BOTH), None)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node stands: under which node, with which names of known types, behind a question or not."""

    parent: ast.AST | None
    types: dict[str, str]
    is_guarded: bool


_Positions = Iterator[tuple[ast.AST, _Place]]
_BLOCKS = (ast.FunctionDef, ast.With, ast.Try, ast.For, ast.While)


def _positions(tree: ast.Module, package: Package) -> _Positions:
    """Visit each node in order: what a statement reads before what it binds, a block after its head."""
    yield from _block(tree.body, _Place(tree, {}, is_guarded=False), package)


def _block(statements: list[Any], place: _Place, package: Package) -> _Positions:
    for statement in statements:
        yield from _visit(statement, place, package)
        if isinstance(statement, ast.If) and _asks_not(statement.test) and _leaves(statement.body):
            place = replace(place, is_guarded=True)


def _visit(node: ast.AST, place: _Place, package: Package) -> _Positions:
    if isinstance(node, ast.FunctionDef):
        place = _entered(node, place, package)
    inner = replace(place, parent=node)
    if isinstance(node, ast.If | ast.IfExp):
        yield node, place
        yield from _branches(node, inner, package)
        return
    blocks = [getattr(node, name, []) for name in ("body", "handlers", "orelse", "finalbody")]
    blocks = blocks if isinstance(node, _BLOCKS) else []
    later = {id(each) for block in blocks for each in block}
    for each in ast.iter_child_nodes(node):
        if id(each) not in later:
            yield from _visit(each, inner, package)
    yield node, place
    for block in blocks:
        yield from _block(block, inner, package)


def _entered(node: ast.FunctionDef, place: _Place, package: Package) -> _Place:
    types = {**place.types, **package.parameter_classes(node)}
    if isinstance(place.parent, ast.ClassDef):
        types["self"] = f".{place.parent.name}"
    return _Place(place.parent, types, is_guarded=place.is_guarded or node.name in package.guarded_functions)


def _branches(node: ast.If | ast.IfExp, place: _Place, package: Package) -> _Positions:
    opens, closes = _asks(node.test), _asks_not(node.test)
    yield from _visit(node.test, replace(place, is_guarded=place.is_guarded or opens or closes), package)
    for branch, is_open in ((node.body, opens), (node.orelse, closes)):
        guarded = replace(place, is_guarded=place.is_guarded or is_open)
        yield from _block(branch if isinstance(branch, list) else [branch], guarded, package)


def _asks(test: ast.expr) -> bool:
    """Say whether a condition that holds means that the ability is there."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(_asks(each) for each in test.values)
    if isinstance(test, ast.Call):
        return isinstance(test.func, ast.Name) and test.func.id == "hasattr"
    return isinstance(test, ast.Attribute | ast.Name) and ast.unparse(test).rpartition(".")[2] in ABILITIES


def _asks_not(test: ast.expr) -> bool:
    """Say whether a condition that fails means that the ability is there."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return any(_asks_not(each) for each in test.values)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and _asks(test.operand)


def _leaves(body: list[ast.stmt]) -> bool:
    return isinstance(body[-1], ast.Return | ast.Raise | ast.Continue)


def _misbound(tree: ast.Module) -> Iterator[int]:
    allowed: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            loaded = ast.unparse(node.value).endswith(("load('tensorrt')", "import_module('tensorrt')"))
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            allowed |= {id(each) for each in targets} if loaded else set()
    for node in ast.walk(tree):
        stored = isinstance(node, ast.Name) and node.id == _MODULE and isinstance(node.ctx, ast.Store)
        if isinstance(node, ast.Name) and stored and id(node) not in allowed:
            yield node.lineno
        if isinstance(node, ast.arg) and node.arg == _MODULE:
            yield node.lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                bound = alias.asname or alias.name
                is_module = isinstance(node, ast.Import) and alias.name == "tensorrt"
                if (bound == _MODULE) != is_module:
                    yield node.lineno


def faults(package: Package, apis: dict[str, Api]) -> Iterator[str]:
    """Name every use that is not in both APIs and not guarded, or that no API has as it is called."""
    know(apis.values())
    for use in package.uses():
        if use.name in _OURS or (use.owner == "" and use.name.startswith("__")):
            continue
        refused = {version: why for version, api in apis.items() if (why := _why_not(use, api))}
        if len(refused) == len(apis) or (refused and not use.is_guarded):
            yield f"{use} ({'; '.join(f'{version}: {why}' for version, why in refused.items())})"


def _why_not(use: Use, api: Api) -> str:
    if use.owner == "":
        known = {*api["classes"], *api["functions"], *api["constants"], "__version__"}
        if use.name not in known:
            return "no such name"
        forms = api["functions"].get(use.name) or _members(api, use.name).get("__init__")
        return _why_not_called(use.call, forms)
    if use.owner not in api["classes"]:
        return f"no class {use.owner}"
    members = _members(api, use.owner)
    if use.name not in members and not (use.name.startswith("__") and use.name.endswith("__")):
        return "no such member"
    return _why_not_called(use.call, members.get(use.name))


def _members(api: Api, name: str) -> dict[str, list[str] | None]:
    """Give a class's members and those of its bases; methods with their forms."""
    fact = api["classes"].get(name)
    if fact is None:
        return {}
    found: dict[str, list[str] | None] = {}
    for base in fact["bases"]:
        found |= _members(api, base)
    found |= dict.fromkeys((*fact.get("enum", ()), *fact.get("properties", ()), *fact.get("attributes", ())))
    found |= {"name": None, "value": None} if "enum" in fact else {}
    nested = {each.partition(".")[2]: None for each in api["classes"] if each.startswith(f"{name}.")}
    return {**found, **nested, **fact.get("methods", {})}


def _why_not_called(call: ast.Call | None, forms: list[str] | None) -> str:
    if call is None or not forms or any(isinstance(each, ast.Starred) for each in call.args):
        return ""
    keywords = [each.arg for each in call.keywords]
    if None in keywords or any(_binds(form, len(call.args), keywords) for form in forms):
        return ""
    # `trt.ILogger.__init__(self)`: the object itself is given.
    if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__" and len(call.args) == 1:
        return ""
    return f"called with {len(call.args)} arguments and {keywords}, not as {' or '.join(forms)}"


def _binds(form: str, positional: int, keywords: list[str | None]) -> bool:
    parameters = signature(form)
    if positional > len(parameters):
        return False
    rest = {each.name: each for each in parameters[positional:]}
    missing = [each for each in rest.values() if not each.is_optional and each.name not in keywords]
    return not missing and all(each in rest for each in keywords)
