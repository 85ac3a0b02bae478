"""The picture of the data flow in docs/architecture.md, drawn from dvc.yaml.

Command, in the repository root: `python docs/draw_architecture.py`, which writes
docs/architecture.svg. A test draws it again and compares, so the picture cannot be out of date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
REPORTS = "reports/"
OTHER_REPORTS = "other reports"
LEFT, TOP, COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT = 24, 72, 92, 44, 116, 30
STYLE = """
  .ground { fill: #ffffff }
  .band { fill: #f4f6f8 }
  .box { fill: #2f5d8a }
  .name { fill: #ffffff; font-weight: 600 }
  .label, .legend { fill: #1f2933 }
  .row { stroke: #cbd2d9; stroke-width: 1.5 }
  .life { stroke: #7b8794; stroke-width: 2.5 }
  .writes { fill: #c2551b; stroke: #c2551b; stroke-width: 2.5 }
  .reads { fill: #ffffff; stroke: #2f5d8a; stroke-width: 2.5 }
  text { font: 14px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif }
  .label { font-size: 12px }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 }
    .band { fill: #161b22 }
    .box { fill: #58a6ff }
    .name { fill: #0d1117 }
    .label, .legend { fill: #e6edf3 }
    .row { stroke: #30363d }
    .life { stroke: #8b949e }
    .writes { fill: #ff9b5e; stroke: #ff9b5e }
    .reads { fill: #0d1117; stroke: #58a6ff }
  }
"""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, without the code it depends on."""

    name: str
    description: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def _path(entry: str | Mapping[str, Any], values: Mapping[str, str]) -> str:
    """A dependency or output with its variables filled in, cut off at what a matrix fills in."""
    text = entry if isinstance(entry, str) else next(iter(entry))
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return re.split(r"/?[^/]*\$\{", text)[0]


def read_stages(pipeline: Mapping[str, Any]) -> list[Stage]:
    """Stages in the order of the file; paths that start with the code's folder are left out."""
    values = {"data": "data"}
    for group in pipeline.get("vars", []):
        values |= {name: str(value) for name, value in group.items() if name != "data"}
    code = values["code"]
    stages = []
    for name, definition in pipeline["stages"].items():
        body = definition.get("do", definition)
        reads = [_path(entry, values) for entry in body.get("deps", [])]
        outputs = [*body.get("outs", []), *body.get("metrics", []), *body.get("plots", [])]
        stages.append(
            Stage(
                name,
                body.get("desc", ""),
                tuple(dict.fromkeys(path for path in reads if not path.startswith(code))),
                tuple(dict.fromkeys(_path(entry, values) for entry in outputs)),
            )
        )
    return stages


def columns(stages: Sequence[Stage]) -> list[str]:
    """What flows between stages, in the order it is written.

    A report that only the stage `report` reads, or nobody, shares one last column with the others.
    """
    readers = [path for stage in stages if stage.name != "report" for path in stage.reads]
    written = [path for stage in stages for path in stage.writes]
    inputs = [path for path in dict.fromkeys(readers) if path not in written]
    flowing = [path for path in written if not path.startswith(REPORTS) or path in readers]
    return [*dict.fromkeys([*inputs, *flowing]), OTHER_REPORTS]


def _lines(label: str) -> list[str]:
    folder, slash, name = label.rpartition("/")
    return [folder + slash, name] if slash else label.split(" ")


def draw(stages: Sequence[Stage]) -> str:
    """The picture as SVG: a row per stage, a line per path from its writer to its last reader."""
    paths = columns(stages)
    width = LEFT + BOX_WIDTH + 20 + COLUMN * len(paths) + LEFT
    height = TOP + ROW * len(stages) + 56
    x = {path: LEFT + BOX_WIDTH + 20 + COLUMN * i + COLUMN // 2 for i, path in enumerate(paths)}

    def where(path: str) -> str:
        return path if path in x else OTHER_REPORTS

    reads = {(where(path), row) for row, stage in enumerate(stages) for path in stage.reads}
    writes = {(where(path), row) for row, stage in enumerate(stages) for path in stage.writes}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="Stages and what they read and '
        f'write">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
    ]
    y = [TOP + ROW * row + ROW // 2 for row in range(len(stages))]
    for row in range(0, len(stages), 2):
        parts.append(
            f'<rect class="band" x="{LEFT // 2}" y="{TOP + ROW * row}" width="{width - LEFT}" '
            f'height="{ROW}" rx="4"/>'
        )
    for path in paths:
        for i, line in enumerate(_lines(path)):
            parts.append(
                f'<text class="label" x="{x[path]}" y="{TOP - 34 + 18 * i}" '
                f'text-anchor="middle">{escape(line)}</text>'
            )
        rows = [row for column, row in reads | writes if column == path]
        start = y[min(rows)] if (path, min(rows)) in writes else TOP - 6
        parts.append(
            f'<line class="life" x1="{x[path]}" y1="{start}" x2="{x[path]}" y2="{y[max(rows)]}"/>'
        )
    for row, stage in enumerate(stages):
        last = max(x[path] for path, at in reads | writes if at == row)
        parts += [
            f'<line class="row" x1="{LEFT + BOX_WIDTH}" y1="{y[row]}" x2="{last}" y2="{y[row]}"/>',
            f"<g><title>{escape(stage.description)}</title>"
            f'<rect class="box" x="{LEFT}" y="{y[row] - BOX_HEIGHT // 2}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="6"/><text class="name" x="{LEFT + BOX_WIDTH // 2}" '
            f'y="{y[row] + 5}" text-anchor="middle">{escape(stage.name)}</text></g>',
        ]
    for path, row in sorted(reads):
        radius = 9 if (path, row) in writes else 7
        parts.append(f'<circle class="reads" cx="{x[path]}" cy="{y[row]}" r="{radius}"/>')
    for path, row in sorted(writes):
        radius = 3 if (path, row) in reads else 7
        parts.append(f'<circle class="writes" cx="{x[path]}" cy="{y[row]}" r="{radius}"/>')
    bottom = height - 22
    for left, kind, text in ((LEFT, "writes", "writes"), (LEFT + 110, "reads", "reads")):
        parts += [
            f'<circle class="{kind}" cx="{left + 8}" cy="{bottom - 5}" r="7"/>',
            f'<text class="legend" x="{left + 24}" y="{bottom}">{text}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the picture."""
    from ruamel.yaml import YAML

    pipeline = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    PICTURE.write_text(draw(read_stages(pipeline)), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
