"""CSCC: the activation map in the CSR form of its MEC-lowered matrix (Fan et al., IEEE Access 2019).

A non-zero is stored once per strip it is part of: Ow + 1 pointers and two words each. Workspace: that, for a
map without zeros. The layout is `zeroskip.encodings.cscc`'s.
"""

from __future__ import annotations

from zeroskip.conv import strips

ALGORITHM = strips.algorithm(
    "cscc",
    "rows",
    "activations in CSR over vertical strips, encoded at run time",
    "Fan et al., IEEE Access 2019",
)
