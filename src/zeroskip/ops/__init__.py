"""Compiled kernels of the operators that are not convolutions: a file each, whose functions return a `Call`."""
