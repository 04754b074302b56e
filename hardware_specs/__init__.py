"""Devices, fabrics, kernel families, engine profiles and prices: data and its loader."""

from moeplan.hardware_specs.loader import find_device, find_fabric, load_hardware
from moeplan.hardware_specs.schema import Device, EngineProfile, Fabric, Figure, Hardware

__all__ = [
    "Device",
    "EngineProfile",
    "Fabric",
    "Figure",
    "Hardware",
    "find_device",
    "find_fabric",
    "load_hardware",
]
