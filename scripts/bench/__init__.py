"""Benchmarks: each compares contenders side by side in one run and prints ratios of medians."""
