"""The drawing of the layers, made from the imports of the code each time the pages are built.

Each part of a package is a row, and stands below all parts that import it: every arrow points down,
and parts that import each other are an error. Left of the rows, each part that others import has a
line. It begins at its topmost importer, has a dot where a further one joins, and ends in an arrow
at the part itself. An import is left out where other arrows lead from the one part to the other.
"""

from __future__ import annotations

import ast
import html
import importlib.util
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from itertools import count
from pathlib import Path
from typing import NamedTuple

import grimp

# In pixels, where it is not scaled.
_LANE = 16
_ROW = 40
_BOX_HEIGHT = 28
_BOX_WIDTH = 150
_PORT = 5  # imports leave a box this far below its middle, and arrive as far above it
_HEAD = 8
_TEXT_WIDTH = 420
_TEXT_COLUMNS = 70


@dataclass(frozen=True)
class Layers:
    """The parts of a package.

    Attributes:
        texts: Part -> the first line of its docstring; an importer stands before what it imports.
        imports: Part -> the parts that it imports.
    """

    texts: Mapping[str, str]
    imports: Mapping[str, frozenset[str]]

    def importers(self) -> dict[str, list[str]]:
        """Part -> those that import it and do not reach it by way of another part as well."""
        found: dict[str, list[str]] = {}
        for part in self.texts:
            for imported in self.imports[part]:
                others = self.imports[part] - {imported}
                if not any(imported in self._reached(other) for other in others):
                    found.setdefault(imported, []).append(part)
        return found

    def _reached(self, part: str) -> frozenset[str]:
        found = self.imports[part]
        return found.union(*map(self._reached, found))


@cache
def layers_of(package: str) -> Layers:
    """The layers of a package: its modules and subpackages, with the imports between them.

    Imports for type checkers alone do not count. A name that the package itself exports counts as
    imported from the module that has it.

    Raises:
        graphlib.CycleError: Its parts import each other.
    """
    graph = _graph(package.partition(".")[0])
    exports = _exports(package)
    depth = package.count(".") + 1

    def part_of(module: str) -> str:
        names = module.split(".")
        return names[depth] if len(names) > depth and module.startswith(f"{package}.") else ""

    imports: dict[str, set[str]] = {part_of(child): set() for child in graph.find_children(package)}
    for module in graph.find_descendants(package):
        targets = graph.find_modules_directly_imported_by(module)
        if package in targets:
            lines = graph.get_import_details(importer=module, imported=package)
            wanted = {line["line_number"] for line in lines}
            targets |= {
                exports[name]
                for node in ast.walk(ast.parse(_source(module).read_text()))
                if isinstance(node, ast.ImportFrom) and node.lineno in wanted
                for name in (alias.name for alias in node.names)
                if name in exports
            }
        imports[part_of(module)] |= {part_of(target) for target in targets} - {""}
    edges = {part: frozenset(found - {part}) for part, found in imports.items()}
    return Layers(
        texts={part: _summary(f"{package}.{part}") for part in _sorted(edges)},
        imports=edges,
    )


@cache
def _graph(package: str) -> grimp.ImportGraph:
    return grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)


def _sorted(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Importers first; of parts that could stand in the same row, the public ones."""
    sorter = TopologicalSorter(dict.fromkeys(imports, ()))
    for part, found in imports.items():
        for imported in found:
            sorter.add(imported, part)
    sorter.prepare()
    rows = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda part: (part.startswith("_"), part))
        rows += ready
        sorter.done(*ready)
    return rows


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _exports(package: str) -> dict[str, str]:
    """Name -> the module of the package that has it, by the imports in the package itself."""
    tree = ast.parse(_source(package).read_text())
    return {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module != package
        for alias in node.names
    }


def _summary(module: str) -> str:
    """The first line of a module's docstring, without marks."""
    text = ast.get_docstring(ast.parse(_source(module).read_text())) or ""
    return text.partition("\n")[0].replace("``", "").rstrip(".")


class _Lane(NamedTuple):
    """The line that leads to a part; rows are counted from 0.

    Attributes:
        number: 0 for the lane nearest to the rows.
        importers: The rows of its importers, from the top.
        row: Its own row.
    """

    number: int
    importers: list[int]
    row: int

    def overlaps(self, other: _Lane) -> bool:
        return self.importers[0] < other.row and other.importers[0] < self.row


def _lanes(layers: Layers) -> dict[str, _Lane]:
    rows = {part: row for row, part in enumerate(layers.texts)}
    lines = {
        part: _Lane(0, sorted(rows[importer] for importer in importers), rows[part])
        for part, importers in layers.importers().items()
    }
    lanes: dict[str, _Lane] = {}
    # Short lines nearest to the rows.
    for part in sorted(lines, key=lambda part: (lines[part].row - lines[part].importers[0], part)):
        line = lines[part]
        taken = {lane.number for lane in lanes.values() if lane.overlaps(line)}
        number = next(number for number in count() if number not in taken)
        lanes[part] = line._replace(number=number)
    return lanes


def svg(package: str, title: str) -> str:
    """The drawing as an SVG element; a page's style sheet gives it its colours."""
    layers = layers_of(package)
    lanes = _lanes(layers)
    names = [html.escape(part) for part in layers.texts]
    left = _LANE * (2 + max((lane.number for lane in lanes.values()), default=0))
    shapes: list[str] = []
    for lane in lanes.values():
        users = ", ".join(names[row] for row in lane.importers)
        x, end, tip = left - _LANE * (1 + lane.number), _middle(lane.row) - _PORT, left - _HEAD
        first, *others = (_middle(row) + _PORT for row in lane.importers)
        shapes += [
            f"<g><title>{names[lane.row]} is imported by {users}</title>",
            f'<path d="M{left} {first}H{x}V{end}H{tip}"/>',
            *(f'<path d="M{left} {y}H{x}"/><circle cx="{x}" cy="{y}" r="2.5"/>' for y in others),
            f'<path class="head" d="M{tip} {end - 4}L{left} {end}L{tip} {end + 4}Z"/></g>',
        ]
    beside = left + _BOX_WIDTH + 14
    for row, text in enumerate(layers.texts.values()):
        kind = "private" if names[row].startswith("_") else "public"
        middle = _middle(row)
        lines = textwrap.wrap(text, _TEXT_COLUMNS, max_lines=2, placeholder=" …")
        shapes += [
            f'<rect class="{kind}" x="{left}" y="{middle - _BOX_HEIGHT / 2}" '
            f'width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="4"/>',
            f'<text class="name" x="{left + 10}" y="{middle + 4.5}">{names[row]}</text>',
        ]
        for number, line in enumerate(lines):
            y = middle + 4.5 + 16 * (number - (len(lines) - 1) / 2)
            shapes.append(f'<text x="{beside}" y="{y}">{html.escape(line)}</text>')
    width, height = beside + _TEXT_WIDTH, _ROW * len(names)
    return (
        f'<svg class="layers" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(shapes)}</svg>'
    )


def _middle(row: int) -> float:
    return _ROW * (row + 0.5)
