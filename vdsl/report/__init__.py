"""Results: what a run found, as numbers, files, tables and plots."""
