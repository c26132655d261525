"""Compute resources of a process: devices, precision, memory, Ray."""
