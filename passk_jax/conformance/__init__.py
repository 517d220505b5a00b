"""A kit against which others test their estimators of pass@k: exact sums, golden numbers, ports.

    python -m passk_jax.conformance my_module:my_function --claims pass_at_k --k 4

says whether the expected update of a function is the gradient that it claims to be, and by how much
it is off. `examine` does it in Python. `golden.json` has the numbers of every row of the table, and
`golden.compare` runs a function of yours against them. `numpy_port` and `torch_port` have the
unbiased rows in one file each, without JAX, to be copied. docs/conformance.md tells the rest.
"""

from passk_jax.conformance.examine import CLAIMS, Findings, examine

__all__ = ["CLAIMS", "Findings", "examine"]
