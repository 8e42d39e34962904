"""Layerhold measured against the Go program, in one run, in turn. `python -m benchmarks --help` says how."""
