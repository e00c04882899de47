"""Runs on several nodes, as the tests of decisions begin with them."""

from typing import Any

from support.results import DONE

from lmft_operator.settings import parse


def several(World: Any, nodes: int = 4, **resources: Any) -> Any:
    """A run on several nodes whose preparation is done and whose second attempt trains."""
    world = World(resources={"nodes": nodes, **resources})
    world.settings = parse("policy: {maxNodes: 8}")
    world.step()
    world.run_pod()
    world.end_pod(said=DONE)
    world.close_job(complete=True)
    world.step()
    return world
