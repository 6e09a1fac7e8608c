"""Training on several devices and machines: one process a device, all of which run the same code on shares of the data.

The processes are numbered: rank 0, 1, ... A stage computes with ``ranks``, whatever their number, and is started on all
of them by ``launch``.
"""
