"""Benchmarks: one module a question. Run ``python -m benchmarks [NAME ...]``."""
