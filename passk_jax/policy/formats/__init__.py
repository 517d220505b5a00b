"""The files that models are published in: their names, their layouts, their bytes."""
