"""What a process computes with: devices, precision, memory, Ray."""
