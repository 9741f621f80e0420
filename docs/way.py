"""Draws the README's picture, for light and dark pages: ``python docs/way.py``.

The rows in it are the demo's, as the README's table has them.
"""

from pathlib import Path

LIGHT = {"ink": "#1f2328", "soft": "#656d76", "line": "#afb8c1", "box": "#f6f8fa", "one": "#0969da"}
DARK = {"ink": "#e6edf3", "soft": "#9198a1", "line": "#545d68", "box": "#161b22", "one": "#58a6ff"}
ROWS = (  # question, accuracy, its interval
    ("kNN, k 20", 0.943, 0.911, 0.964),
    ("kNN, k 200", 0.937, 0.903, 0.959),
    ("linear", 0.973, 0.948, 0.986),
)
ASKED = (
    "any layer, any pool",
    "kNN, linear, your own",
    "5 images of a class",
    "other labels, other splits",
)
FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


def draw(colour: dict[str, str]) -> str:
    """The picture as SVG, 880 by 268."""
    c = colour
    parts: list[str] = []

    def text(
        x: float, y: float, words: str, size: int = 13, fill: str = "ink", **more: str
    ) -> None:
        extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
        parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{c[fill]}"{extra}>{words}</text>'
        )

    def box(
        x: float, y: float, w: float, h: float, fill: str = "box", stroke: str = "line"
    ) -> None:
        parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{c[fill]}" stroke="{c[stroke]}"/>'
        )

    def arrow(x: float, y: float, to_x: float, to_y: float, stroke: str = "line") -> None:
        middle = (x + to_x) / 2
        parts.append(
            f'<path d="M{x} {y} C{middle} {y} {middle} {to_y} {to_x - 5} {to_y}" fill="none" '
            f'stroke="{c[stroke]}" stroke-width="1.5"/>'
            f'<path d="M{to_x - 7} {to_y - 4} l7 4 l-7 4" fill="none" stroke="{c[stroke]}" stroke-width="1.5"/>'
        )

    def heading(x: float, words: str, below: str) -> None:
        text(x, 22, words, 15, font_weight="600")
        text(x, 41, below, 12, "soft")

    heading(10, "images", "PNG, DICOM, NIfTI...")
    for i in range(3):
        box(10 + 9 * i, 84 + 9 * i, 74, 74)
    parts.append(f'<circle cx="58" cy="133" r="16" fill="{c["soft"]}" opacity="0.45"/>')
    parts.append(f'<circle cx="74" cy="150" r="8" fill="{c["one"]}" opacity="0.8"/>')

    arrow(106, 136, 160, 136, "one")
    text(117, 126, "once", 12, "one", font_weight="600")

    heading(164, "encoder", "frozen, no training")
    for i in range(4):
        box(168 + 24 * i, 78, 16, 116)
        parts.append(f'<circle cx="{176 + 24 * i}" cy="{208}" r="2.5" fill="{c["one"]}"/>')
    text(166, 230, "every layer is kept", 12, "soft")
    arrow(266, 136, 312, 136, "one")

    heading(316, "one feature file", "it says what made it")
    box(316, 66, 148, 144)
    for i, name in enumerate(("layer 0", "layer 1", "...", "layer 11", "head")):
        y = 90 + 25 * i
        text(328, y, name, 12, "soft")
        for j in range(2 if i < 4 else 1):
            if name != "...":
                parts.append(
                    f'<rect x="{388 + 34 * j}" y="{y - 11}" width="28" height="13" rx="2" '
                    f'fill="{c["one"]}" opacity="{0.25 + 0.12 * i}"/>'
                )
    text(389, 230, "cls", 11, "soft")
    text(420, 230, "mean", 11, "soft")

    heading(508, "questions", "seconds each")
    for i, words in enumerate(ASKED):
        y = 68 + 37 * i
        arrow(466, 138, 506, y + 14)
        box(508, y, 164, 28)
        text(518, y + 18, words, 12)
        arrow(673, y + 14, 704, 138)

    heading(708, "rows", "with 95 % intervals")
    low, scale = 0.88, 150 / 0.12  # accuracy at the left edge, pixels of 1.0
    for i, (words, value, least, most) in enumerate(ROWS):
        y = 84 + 50 * i
        left, middle, right = (710 + (v - low) * scale for v in (least, value, most))
        text(710, y, words, 12, "soft")
        text(868, y, f"{value:.3f}", 13, text_anchor="end", font_weight="600")
        parts.append(
            f'<path d="M710 {y + 16} h150" stroke="{c["line"]}" stroke-width="1" opacity="0.6"/>'
            f'<path d="M{left:.1f} {y + 16} H{right:.1f}" stroke="{c["one"]}" stroke-width="3" stroke-linecap="round"/>'
            f'<circle cx="{middle:.1f}" cy="{y + 16}" r="4.5" fill="{c["one"]}"/>'
        )
    text(710, 230, "0.88", 11, "soft")
    text(860, 230, "accuracy 1.00", 11, "soft", text_anchor="end")
    text(10, 258, "extract", 13, "one", font_family="monospace", font_weight="600")
    text(508, 258, "probe", 13, "one", font_family="monospace", font_weight="600")
    parts.append(
        f'<path d="M72 254 H494 M556 254 H868" stroke="{c["line"]}" stroke-dasharray="2 4"/>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 268" font-family="{FONT}">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    for name, colour in (("way.svg", LIGHT), ("way_dark.svg", DARK)):
        (Path(__file__).parent / name).write_text(draw(colour), encoding="utf-8", newline="\n")
