"""Recipes: typed, frozen descriptions of models, read from TOML and checked."""
