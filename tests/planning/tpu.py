"""Compiles for TPUs that are not there."""

import functools
import os

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from passk_jax.planning.chips import parse_slice

# Another process may compile at the same time; libtpu asks no metadata server where it is.
QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}


@functools.cache
def devices(name):
    pytest.importorskip("libtpu", reason="libtpu compiles for TPU topologies; it is not installed")
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    return topologies.get_topology_desc(**parse_slice(name).topology_arguments).devices


def mesh(name, **axes):
    auto = (jax.sharding.AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), devices=devices(name), axis_types=auto)


def array(mesh, shape, *spec):
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)


def compiled_text(function, *arrays):
    return jax.jit(function).lower(*arrays).compile().as_text()
