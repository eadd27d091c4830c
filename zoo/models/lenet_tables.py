"""Two tables of the 1998 paper: which maps C3 connects, and target codes drawn as bitmaps of the digits."""

from __future__ import annotations

import numpy as np

# Table I: the S2 maps that each of the sixteen C3 maps sees. Six see three neighbours, six see four neighbours, three see
# four with a gap, and the last sees all.
C3_CONNECTIONS = (
    *(tuple((start + k) % 6 for k in range(3)) for start in range(6)),
    *(tuple((start + k) % 6 for k in range(4)) for start in range(6)),
    *(tuple((start + k) % 6 for k in (0, 1, 3, 4)) for start in range(3)),
    tuple(range(6)),
)

# Stylized digits, seven wide and twelve high, in the spirit of the paper's Figure 3 (drawn anew: the paper's own pixels are
# not published as data).
_DIGITS = """
..###.. ...#... .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..##... ##...## ##...## ....##. ##..... .##.... .....## ##...## ##...##
##...## .###... .....## .....## ...###. ##..... ##..... .....## ##...## ##...##
##...## ...#... .....## .....## ...###. ##..... ##..... ....##. ##...## ##...##
##...## ...#... ....##. ....##. ..#.##. ##..... ##..... ....##. .##.##. ##...##
##...## ...#... ...##.. ..###.. ..#.##. ######. ######. ...##.. ..###.. .######
##...## ...#... ..##... ....##. .#..##. .....## ##...## ...##.. .##.##. ......#
##...## ...#... .##.... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## ....##. .....## ##...## ..##... ##...## ....##.
.##.##. ...#... ##..... ##...## ....##. ##...## .##.##. .##.... ##...## ...##..
..###.. ..###.. ####### .#####. ....##. .#####. ..###.. .##.... .#####. .###...
"""


def digit_bitmaps(num_classes: int) -> np.ndarray:
    """Target codes [num_classes, 84] of -1 and 1: the digits' bitmaps, then codes drawn at random, as the paper suggests."""
    rows = [line.split() for line in _DIGITS.strip().splitlines()]
    drawn = [[[1.0 if dot == "#" else -1.0 for dot in row[digit]] for row in rows] for digit in range(10)]
    codes = np.array(drawn).reshape(10, 84)
    more = np.random.default_rng(1998).choice([-1.0, 1.0], (max(num_classes - 10, 0), 84))
    return np.concatenate([codes, more])[:num_classes]
