"""`make bench`: ours and the others side by side in one run, medians of repetitions, written to docs/benchmarks.md."""
