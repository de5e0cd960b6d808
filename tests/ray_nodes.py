"""A real Ray of two nodes on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def two_nodes(**second: Any) -> Iterator[Any]:
    """A head and a `second` node, of one core each, without statistics and dashboard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        from ray.cluster_utils import Cluster

        arguments = {"num_cpus": 1, "include_dashboard": False}
        started: Any = Cluster(initialize_head=True, head_node_args=arguments)
        started.second = started.add_node(num_cpus=1, **second)
        yield started
        started.shutdown()
