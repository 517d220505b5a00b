"""File formats of published models: their names, layouts and bytes."""
