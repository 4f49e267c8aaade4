"""Devices that chains are spread over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "chains"


@dataclass(frozen=True)
class Devices:
    """Some devices, each of which has as many chains as any other; or the one that JAX takes.

    Attributes:
      mesh: of one axis; None for the one that JAX takes.
    """

    mesh: Mesh | None

    @classmethod
    def among(cls, devices: Iterable[jax.Device] | None, num_chains: int) -> Devices:
        """Those devices, for that many chains.

        Raises:
          TypeError: one is no device.
          ValueError: there is none, one is there twice, or the number of chains is not a multiple of theirs.
        """
        if devices is None:
            return cls(None)
        if not isinstance(devices, Iterable):
            raise TypeError(f"devices are a list of some, such as jax.devices(), not {devices!r}")
        devices = list(devices)
        wrong = [device for device in devices if not isinstance(device, jax.Device)]
        if wrong:
            raise TypeError(f"devices are a list of some, such as jax.devices(), and {wrong[0]!r} is none")
        if not devices or len(set(devices)) != len(devices):
            raise ValueError(f"devices are one or more, each of them once; got {list(devices)}")
        if num_chains % len(devices):
            raise ValueError(
                f"as many chains run on each device: num_chains is a multiple of {len(devices)}, not {num_chains}"
            )
        return cls(Mesh(np.array(devices), (AXIS,)))

    @property
    def count(self) -> int:
        return 1 if self.mesh is None else self.mesh.size

    def spread(self, function: Callable) -> Callable:
        """``function(own, given)``, called on each device with its part of ``own``.

        That, and what it returns, has a leading axis of chains.
        """
        if self.mesh is None:
            return function
        own = PartitionSpec(AXIS)
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=(own, PartitionSpec()), out_specs=own, check_vma=False
        )

    def of_all(self, function: Callable) -> Callable:
        """``function(own, *rest)``, called with what all devices have, for what it returns of one's own."""
        if self.mesh is None:
            return function

        def on_all(own: Any, *rest):
            after = function(lax.all_gather(own, AXIS, tiled=True), *rest)
            size = len(jax.tree.leaves(own)[0])
            begin = lax.axis_index(AXIS) * size
            return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, begin, size), after)

        return on_all

    def once(self, report: Callable, *args) -> None:
        """Calls what has no result on one of them."""
        if self.mesh is None:
            report(*args)
        else:
            lax.cond(lax.axis_index(AXIS) == 0, lambda: report(*args), lambda: None)

    def everywhere(self, tree: Any) -> Any:
        """Arrays that all of them have, wherever these were before."""
        return tree if self.mesh is None else jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))
