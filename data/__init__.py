"""Build, fetch, check and describe benchmarks and training sets: commands and their parts."""
