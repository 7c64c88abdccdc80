"""CPO: each non-zero activation once, by how many strips see it (Amer et al. 2021).

n (Ow + 1) pointers and two words per non-zero. Workspace: that, for a map without zeros. The layout is
`zeroskip.encodings.cpo`'s, the product its published loop.
"""

from __future__ import annotations

from zeroskip.conv import strips

ALGORITHM = strips.algorithm(
    "cpo",
    "columns",
    "compressed pattern overlap: each non-zero activation once, encoded at run time",
    "Amer et al. 2021, arXiv 2104.08314",
)
