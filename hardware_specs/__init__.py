"""Devices, fabrics, kernel families, engine profiles, prices: data, and the loader that checks it."""

from moeplan.hardware_specs.loader import load_hardware
from moeplan.hardware_specs.schema import Device, EngineProfile, Fabric, Figure, Hardware

__all__ = ["Device", "EngineProfile", "Fabric", "Figure", "Hardware", "load_hardware"]
