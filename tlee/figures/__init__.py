"""Every figure of the kit, one function each: takes a table, draws on new or given axes, returns them.

Titles say the finding, computed from the data. One module a part of the pipeline, so that a stage depends
on its own figures alone: ``extraction``, ``training``, ``evaluation``, ``latency``; ``style`` is shared.
"""
