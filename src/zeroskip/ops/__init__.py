"""Compiled kernels of the operators that are not convolutions: a file each, functions return a `Call`."""
