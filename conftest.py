"""What pytest does not collect."""

from importlib.util import find_spec

# The port imports PyTorch, which not every environment has; its doctests would be looked for.
collect_ignore = [] if find_spec("torch") else ["passk_jax/conformance/torch_port.py"]
