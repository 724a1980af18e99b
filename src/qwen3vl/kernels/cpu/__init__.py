"""Kernels for CPUs: C++ behind a C ABI, called through ctypes."""
