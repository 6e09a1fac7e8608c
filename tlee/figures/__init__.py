"""The figures, one function each: it takes a table, draws on the given axes or on new ones, and returns them.

Each title states the finding, computed from the data. There is one module for each stage of the pipeline, so that a
stage depends on its own figures only; ``style`` and ``pictures`` are shared.
"""
