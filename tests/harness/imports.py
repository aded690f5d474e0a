"""Analyze imports between the project's modules, by file and by folder, and the purity of modules.

Run `python -m tests.harness.imports` for a report.

A folder is a folder in `sandbox`, or one of the other top-level folders with Python files. Functions take modules as a mapping
from name to source text, so that a test can change a module or make up a whole tree.
"""

import ast
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from tests.harness.python_source import parse_python

ROOT: Final = Path(__file__).parent.parent.parent
PACKAGES: Final = ("sandbox", "worker", "ipn", "seeds")
"""The sandbox's own packages, which a wheel has in `psp_sandbox/_application`."""
TOP_LEVEL: Final = (*PACKAGES, "psp_sandbox", "examples", "openapi", "build_backend", "tests", "ci")
"""All folders with Python files. `ci` is the folder `.ci`, because a module's name cannot begin with a dot."""
_BUILT: Final = "guide"
"""The folder of the guide, which is built, and contains copies of the examples."""


class Layer(NamedTuple):
    """Folders that may import all lower layers, but not each other."""

    name: str
    folders: tuple[str, ...]


LAYERS: Final = (
    Layer("domain, and the process of a user's tests", ("domain", "psp_sandbox")),
    Layer("infrastructure", ("infrastructure",)),
    Layer("unit of work", ("unit_of_work",)),
    Layer("http", ("http",)),
    Layer("payouts and webhooks", ("payouts", "webhooks")),
    Layer("users", ("users",)),
    Layer("worlds", ("worlds",)),
    Layer("server", ("server",)),
    Layer("programs", ("build_backend", "cli", "examples", "ipn", "openapi", "seeds", "worker")),
    Layer("tests", ("tests",)),
    Layer("continuous integration", ("ci",)),
)
"""All layers, lowest first."""

SLICED: Final = ("http", "payouts", "users", "webhooks", "worlds")
"""Folders that consist of slices, one for each resource."""

COMPOSERS: Final = ("server", "tests")
"""Folders that may import an `api` module of another folder."""

_SAYS_PURE: Final = re.compile(r"(^|[.:] )Pure[.:]", re.MULTILINE)
"""A module is pure if it is in `sandbox.domain`, or says so in its docstring: "Pure." or, with a condition, "Pure: …"."""

PURE_LIBRARIES: Final = frozenset({
    "base64", "binascii", "collections", "contextlib", "csv", "cryptography", "dataclasses", "datetime", "decimal", "difflib",
    "email.utils.parsedate_to_datetime", "enum", "fnmatch", "functools", "hashlib", "hmac", "io.StringIO", "ipaddress",
    "itertools", "json", "markupsafe", "math", "msgspec", "operator", "re", "shlex", "statistics", "string", "tomllib", "types",
    "typing", "unicodedata", "urllib.parse", "uuid.UUID", "yarl",
})  # fmt: skip
"""Libraries that a pure module may import: no I/O, no event loop, no clock, no randomness."""
_IMPURE_NAMES: Final = frozenset({
    "datetime.date.today", "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow",
    "open", "input", "print", "__import__",
})  # fmt: skip
_IMPURE_METHODS: Final = frozenset({"generate", "open", "read_bytes", "read_text", "write_bytes", "write_text"})
"""Methods of `Path` that do I/O, and methods that generate a random key."""


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """An import of one of the project's modules by another."""

    importer: str
    imported: str
    at_run_time: bool = True
    """False for an import under TYPE_CHECKING."""

    def __str__(self) -> str:
        return f"{self.importer} → {self.imported}"


def read_sources(root: Path = ROOT, folders: Iterable[str] = TOP_LEVEL) -> dict[str, str]:
    """Read the Python files of these folders below `root`, and return module name → source text."""
    sources = {}
    for folder in folders:
        for path in sorted((root / (".ci" if folder == "ci" else folder)).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if _BUILT not in parts:
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                sources[name.removeprefix(".")] = path.read_text()
    return sources


def folder_of(module: str) -> str:
    """Return the folder of the module, or its own name if the module is the folder's package."""
    first, *rest = module.split(".")
    return rest[0] if first == "sandbox" and rest else first


def internal_imports(sources: Mapping[str, str]) -> set[Import]:
    """Return every import of one of the project's modules, including imports inside functions."""
    found = set()
    for importer, text in sources.items():
        for name, at_run_time in _parsed(text).imports:
            folder = importer.rpartition(".")[0]
            if folder not in sources and f"{folder}.{name.partition('.')[0]}" in sources:
                name = f"{folder}.{name}"  # scripts, whose folder is not a package, import each other by their own names
            if name.partition(".")[0] in TOP_LEVEL and name != "sandbox":
                imported = next((known for known in _prefixes(name) if known in sources and known != "sandbox"), name)
                found.add(Import(importer, imported, at_run_time))
    return found


def relative_imports(sources: Mapping[str, str]) -> list[str]:
    """Return the modules that use relative imports."""
    return [name for name, text in sources.items() if _parsed(text).is_relative]


def upward_imports(imports: Iterable[Import]) -> set[Import]:
    """Return imports of a higher layer, of another folder in the same layer, or of a folder without a layer."""
    heights = {folder: height for height, layer in enumerate(LAYERS) for folder in layer.folders}

    def is_upward(one: Import) -> bool:
        importer, imported = folder_of(one.importer), folder_of(one.imported)
        if importer == imported:
            return False
        if importer not in heights or imported not in heights:
            return True
        return heights[importer] <= heights[imported]

    return {one for one in imports if is_upward(one)}


def api_imports(imports: Iterable[Import]) -> set[Import]:
    """Return imports of an `api` module by folders other than its own and COMPOSERS."""
    return {
        one
        for one in imports
        if one.imported.rpartition(".")[2].endswith("api")
        and folder_of(one.importer) not in (*COMPOSERS, folder_of(one.imported))
    }


def folder_arrows(imports: Iterable[Import]) -> set[tuple[str, str]]:
    """Return (importing folder, imported folder) for all imports between folders."""
    arrows = {(folder_of(one.importer), folder_of(one.imported)) for one in imports}
    return {(importer, imported) for importer, imported in arrows if importer != imported}


def slice_arrows(imports: Iterable[Import], folder: str) -> set[tuple[str, str]]:
    """Return (importing package, imported package) for all imports between the slices of a folder in `sandbox`."""
    within = f"sandbox.{folder}."
    arrows = {
        (one.importer.rpartition(".")[0], one.imported.rpartition(".")[0])
        for one in imports
        if one.importer.startswith(within) and one.imported.startswith(within)
    }
    return {(importer, imported) for importer, imported in arrows if importer != imported}


def cycles(arrows: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of two or more nodes that all reach each other."""
    reached = _reach(arrows)
    groups = {frozenset(other for other in reached[one] if one in reached.get(other, ())) for one in reached}
    return sorted(sorted(group) for group in groups if group)


def layers_needed(arrows: Iterable[tuple[str, str]]) -> int:
    """Return how many layers the arrows need: the length of the longest path down, counting each cycle as one node."""
    reached = _reach(arrows)

    @cache
    def height(one: str) -> int:
        below = (other for other in reached.get(one, ()) if one not in reached.get(other, ()))
        return 1 + max(map(height, below), default=0)

    return max(map(height, reached), default=0)


def is_pure(module: str, text: str) -> bool:
    """Return whether the module with this text must be pure."""
    return module.startswith("sandbox.domain.") or bool(_SAYS_PURE.search(_parsed(text).docstring))


def impurities(sources: Mapping[str, str]) -> list[str]:
    """Return each impurity in a pure module or in a module that it imports at run time, with the import path to it."""
    graph = defaultdict(set)
    for one in internal_imports(sources):
        if one.at_run_time:
            # Importing a module also runs its parent packages.
            graph[one.importer].update(_prefixes(one.imported))
    found = set()
    for start, text in sources.items():
        if not is_pure(start, text):
            continue
        paths = {start: start}
        pending = deque([start])
        while pending:
            module = pending.popleft()
            if module in sources:
                found |= {f"{paths[module]}: {impurity}" for impurity in _impurities(sources[module])}
            for further in sorted(graph[module] - paths.keys()):
                paths[further] = f"{paths[module]} → {further}"
                pending.append(further)
    return sorted(found)


def report(sources: Mapping[str, str]) -> str:
    """Return a text with the layers (highest first), the counts, and any upward imports."""
    imports = internal_imports(sources)
    arrows = folder_arrows(imports)
    upward = upward_imports(imports)
    files = [(one.importer, one.imported) for one in imports]
    folders = {folder_of(module) for module in sources if module != "sandbox"}
    width = max(len(layer.name) for layer in LAYERS)
    rows = [
        f"{layer.name:<{width}}  {' '.join(present)}"
        for layer in reversed(LAYERS)
        if (present := [folder for folder in layer.folders if folder in folders])
    ]
    counts = (
        f"{len(sources)} files, {len(imports)} imports; {len(folders)} folders, {len(arrows)} arrows; "
        f"layers that the arrows need: {layers_needed(arrows)} of {len(LAYERS)} declared; "
        f"slices deep: {', '.join(f'{name} {layers_needed(slice_arrows(imports, name))}' for name in SLICED)}; "
        f"upward: {len(folder_arrows(upward))} arrows, {len(upward)} imports; "
        f"cycles: {len(cycles(arrows))} of folders, {len(cycles(files))} of files"
    )
    return "\n".join([*rows, counts, *(f"upward: {one}" for one in sorted(upward))])


class _Module(NamedTuple):
    docstring: str
    imports: tuple[tuple[str, bool], ...]
    """(Dotted name, whether it is imported at run time) for each import."""
    is_relative: bool
    names: Mapping[str, str]
    """Local name → what it was imported from."""


@lru_cache(maxsize=1024)
def _parsed(text: str) -> _Module:
    tree = parse_python(text)
    type_checking_nodes = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    imports, names, is_relative = [], {}, False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            is_relative |= node.level > 0
            found = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        imports += [(name, id(node) not in type_checking_nodes) for name, _ in found]
        names |= {local: name for name, local in found}
    return _Module(ast.get_docstring(tree) or "", tuple(imports), is_relative, names)


@lru_cache(maxsize=1024)
def _impurities(text: str) -> list[str]:
    return list(_find_impurities(parse_python(text), _parsed(text)))


def _find_impurities(tree: ast.AST, module: _Module) -> Iterator[str]:
    for name, at_run_time in module.imports:
        is_ours = name.partition(".")[0] in TOP_LEVEL
        if at_run_time and not is_ours and not any(prefix in PURE_LIBRARIES for prefix in _prefixes(name)):
            yield f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"is asynchronous in line {node.lineno}"
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            name = module.names.get(first, first) + dot + rest
            is_method = isinstance(node, ast.Attribute) and node.attr in _IMPURE_METHODS
            if name in _IMPURE_NAMES or is_method:
                yield f"uses {name} in line {node.lineno}"


def _prefixes(name: str) -> list[str]:
    """Return a dotted name and the names of its parent packages, longest first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _reach(arrows: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return, for each node with an outgoing arrow, all nodes that it reaches. A node reaches itself only through a cycle."""
    graph = defaultdict(set)
    for source, target in arrows:
        graph[source].add(target)
    reached = {}
    for start in graph:
        seen: set[str] = set()
        pending = [*graph[start]]
        while pending:
            one = pending.pop()
            if one not in seen:
                seen.add(one)
                pending += graph.get(one, ())
        reached[start] = seen
    return reached


if __name__ == "__main__":
    print(report(read_sources()))  # noqa: T201  # this is a command-line program
