"""The resources that a process computes with: devices, precision, memory, Ray."""
