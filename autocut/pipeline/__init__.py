"""Runs a recipe: its stages in order, each through the stage cache, then the measurement."""
