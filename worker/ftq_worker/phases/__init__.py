"""The four phases; each module has one `run(ctx)`."""
