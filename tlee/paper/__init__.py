"""Recipes, ablations, tables and published results for a paper."""
