"""Styles of arms: colour and marker by algorithm, the same in every figure, and line style by setting."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sailctl.analysis.evidence import Arm

if TYPE_CHECKING:
    from matplotlib.artist import Artist

GREY = "#606060"
"""Colour of elements that belong to no arm."""

# Okabe and Ito's colours, which colour-blind readers can distinguish, also in greyscale. A form on segments
# has a darker shade of the colour of its form on actions.
STYLES = {
    "sail": ("#0072B2", "o"),
    "sail_revkl": ("#D55E00", "s"),
    "dpo_online": ("#009E73", "^"),
    "sail_robust": ("#CC79A7", "D"),
    "sail_segments": ("#003F63", "8"),
    "sail_revkl_segments": ("#863B00", "H"),
    "dpo_online_segments": ("#00573F", "1"),
    "sail_robust_segments": ("#7A4566", "2"),
    "sail_dpr": ("#E69F00", "v"),
    "sail_dpp": ("#56B4E9", "P"),
    "sail_ddp": ("#000000", "*"),
    "dpo_offline": ("#7F7F7F", "X"),
    "ppo": ("#5E3C99", "p"),
    "sac": ("#01665E", ">"),
    "rlhf_ppo": ("#A6761D", "h"),
    "pebble": ("#B2182B", "<"),
    "sail_mujoco_parity": ("#7A9A01", "d"),
}
"""Colour and marker of an algorithm."""
_OTHER_STYLES = (("#8C510A", "3"), ("#3F007D", "4"), ("#67001F", "+"), ("#00441B", "x"))
_LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))  # distinguish the settings of an algorithm


@dataclass(frozen=True)
class Style:
    """Line and marker style of an arm."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    fill: str
    """Fill colour of the markers of a line."""
    shift: float
    """Offset of the first marker, as a share of the marker spacing, so that markers do not coincide."""


def style_of(algorithm: str) -> tuple[str, str]:
    """Colour and marker of an algorithm, the same in every figure."""
    other = _OTHER_STYLES[zlib.crc32(algorithm.encode()) % len(_OTHER_STYLES)]
    return STYLES.get(algorithm, other)


def styles_of(arms: Sequence[Arm]) -> dict[str, Style]:
    """The style of each arm: colour and marker of its algorithm, and a line style per setting.

    If there are more settings than line styles, shade and fill differ too. The same applies to other
    algorithms that share a colour.
    """
    styles: dict[str, Style] = {}
    for colour, marker in dict.fromkeys(style_of(arm.algorithm) for arm in arms):
        names = [arm.name for arm in arms if style_of(arm.algorithm) == (colour, marker)]
        shades = np.linspace(-0.45, 0.45, len(names)) if len(names) > len(_LINES) else np.zeros(len(names))
        for number, (name, shade) in enumerate(zip(names, shades, strict=True)):
            shaded, hollow = _shaded(colour, float(shade)), number // len(_LINES) % 2
            line = _LINES[number % len(_LINES)]
            styles[name] = Style(shaded, marker, line, "white" if hollow else shaded, len(styles) / len(arms))
    return styles


def legend_key(style: Style) -> Artist:
    """The legend handle of an arm."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=style.colour, lw=1.7, ls=style.line, marker=style.marker, ms=4.5, mfc=style.fill
    )


def _shaded(colour: str, shade: float) -> str:
    """``colour`` mixed with black (shade -1) or white (+1)."""
    from matplotlib.colors import to_hex, to_rgb

    end = 1.0 if shade > 0 else 0.0
    red, green, blue = (part + abs(shade) * (end - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))
