"""The state machine as a drawing: an SVG that follows the light or dark mode of whatever shows it."""

from __future__ import annotations

from typing import NamedTuple

from jobyard.domain.lifecycle import MOVES, Cause, Status, is_final

WIDTH, HEIGHT = 900, 440
BOX_WIDTH, BOX_HEIGHT = 140, 50
LINE = 18
"""Height of a line of text."""


class Arrow(NamedTuple):
    """Its path, where its label begins, how that is anchored, and whether each cause has a line of its own."""

    path: str
    x: int
    y: int
    anchor: str = "middle"
    stacked: bool = False


PLACES = {
    Status.PENDING: (40, 150),
    Status.PROCESSING: (450, 150),
    Status.COMPLETED: (740, 150),
    Status.FAILED: (450, 350),
}
ARROWS = {
    (Status.PENDING, Status.PROCESSING): Arrow("M180 163H444", 315, 153),
    (Status.PROCESSING, Status.PENDING): Arrow("M450 187H186", 315, 208),
    (Status.PROCESSING, Status.COMPLETED): Arrow("M590 175H734", 662, 165),
    (Status.PROCESSING, Status.FAILED): Arrow("M520 200V344", 534, 238, "start", stacked=True),
    (Status.FAILED, Status.PENDING): Arrow("M450 363H140V206", 295, 354),
    (Status.PENDING, Status.FAILED): Arrow("M80 200V387H444", 264, 408),
}
STYLE = """
    text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
    .cause { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 13px; fill: #57606a; }
    rect { fill: #eef4ff; stroke: #3b6fd4; stroke-width: 1.5; }
    .end { fill: none; }
    path { fill: none; stroke: #6e7781; stroke-width: 1.5; }
    marker path { fill: #6e7781; stroke: none; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .cause { fill: #adb6c2; }
      rect { fill: #1f2f4d; stroke: #7aa5f5; }
      .end { fill: none; }
      path { stroke: #98a2ae; }
      marker path { fill: #98a2ae; }
    }
"""


def states() -> str:
    """Every move of the table, with its causes."""
    undrawn = MOVES.keys() - ARROWS.keys()
    if undrawn:
        raise SystemExit(f"scripts/drawing.py: ARROWS has no place for {sorted(undrawn)}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "  <title>The states of a job and every move between them</title>",
        f"  <style>{STYLE}  </style>",
        '  <defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8Z"/></marker></defs>',
        '  <path d="M110 92V144" marker-end="url(#head)"/>',
        '  <text class="cause" x="110" y="82" text-anchor="middle">create</text>',
        *(_box(status, x, y) for status, (x, y) in PLACES.items()),
        *(_arrow(move, [cause for cause in Cause if cause in causes]) for move, causes in MOVES.items()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(status: Status, x: int, y: int) -> str:
    """A final state has a second border."""
    rect = f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8"/>'
    if is_final(status):
        rect += f'<rect class="end" x="{x + 4}" y="{y + 4}" width="{BOX_WIDTH - 8}" height="{BOX_HEIGHT - 8}" rx="5"/>'
    middle = x + BOX_WIDTH // 2
    return f'  {rect}<text x="{middle}" y="{y + BOX_HEIGHT // 2 + 5}" text-anchor="middle">{status}</text>'


def _arrow(move: tuple[Status, Status], causes: list[Cause]) -> str:
    arrow = ARROWS[move]
    lines = causes if arrow.stacked else [", ".join(causes)]
    label = "".join(
        f'<tspan x="{arrow.x}" y="{arrow.y + at * LINE}">{line}</tspan>' for at, line in enumerate(lines)
    )
    return (
        f'  <g id="{move[0]}-{move[1]}"><path d="{arrow.path}" marker-end="url(#head)"/>'
        f'<text class="cause" text-anchor="{arrow.anchor}">{label}</text></g>'
    )
