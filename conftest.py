"""What must be set before anything imports NumPy."""

import os

# The threads of NumPy's BLAS wait for each other in busy loops: on two processors that also do something
# else, tests that take 1 s took 40 to 100 s.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
