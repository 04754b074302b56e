"""Which tables and figures of the hardware data a prepared deployment is priced by."""

from __future__ import annotations

from collections.abc import Iterator

from moeplan.cost.collectives import AllReduceOperator, SendOperator
from moeplan.cost.engine_profile import find_profile
from moeplan.cost.predictor import Prepared
from moeplan.hardware_specs.schema import HostOverhead, HostOverride, Launches, Provenance


def used_tables(prepared: Prepared) -> list[Provenance]:
    """The very objects of `prepared.hardware` behind memory and step times, each once.

    Kernel tables as picked, links as cut, launches, host times with what overrides them, the memory
    size.
    """
    hardware, device = prepared.hardware, prepared.deployment.device
    found = [
        hardware.devices[device].memory.visible_gib,
        hardware.kernel_set(device).small,
        *_host(prepared),
        *launch_tables(prepared),
        *(table for stage in prepared.priced for op in stage.token for table in _tables(op)),
        *(op.table for stage in prepared.priced for op in stage.decode_attention),
        *(op.table for stage in prepared.priced for op in stage.prefill_attention),
    ]
    return list({id(table): table for table in found}.values())


def launch_tables(prepared: Prepared) -> list[Launches]:
    """Counts of launches that steps of a prepared deployment take outside graphs."""
    parts = frozenset[str]().union(*(stage.launches.parts for stage in prepared.priced))
    return [row for row in prepared.hardware.launches if row.part in parts]


def _host(prepared: Prepared) -> Iterator[HostOverhead | HostOverride]:
    profile, _ = find_profile(prepared.deployment.engine, prepared.hardware)
    yield profile.host
    yield from [o for o in profile.host_overrides if prepared.deployment.device in o.devices][:1]


def _tables(op: object) -> Iterator[Provenance]:
    """Tables of one operator: its kernel's, or those of the links that it crosses."""
    if isinstance(op, SendOperator):
        yield op.fabric.latency_us
        yield op.fabric.bandwidth_gb_per_s
    elif isinstance(op, AllReduceOperator):
        for hop in op.hops:
            parts = (hop.custom, hop.nccl, hop.fabric.serving_extra_us)
            yield from (part for part in parts if part is not None)
    else:
        yield op.table
