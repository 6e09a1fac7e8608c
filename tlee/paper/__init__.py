"""What a paper needs: recipes, ablations, tables, and the numbers that others have published."""
