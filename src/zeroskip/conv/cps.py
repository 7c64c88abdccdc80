"""CPS: CPO with the indices of three or four neighbouring rows folded to prefix and set (Amer et al. 2021).

Workspace: pointers, values and index words for a map without zeros. The layout, with our marking of prefixes,
is `zeroskip.encodings.cps`'s; the product unfolds an index per element, then is CPO's.
"""

from __future__ import annotations

from zeroskip.conv import strips

ALGORITHM = strips.algorithm(
    "cps",
    "sets",
    "compressed pattern sets: CPO with folded indices, encoded at run time",
    "Amer et al. 2021, arXiv 2104.08314",
)
