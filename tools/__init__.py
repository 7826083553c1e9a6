"""Programs for the results of a run."""
