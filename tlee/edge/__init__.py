"""The network on a device: export with real exits, and its latency on this machine, on the device, or estimated.

``graphs`` compiles a policy to graphs that end where it exits, ``export`` writes them, ``bundle`` packs them with the
videos and results to check them by, and ``runner`` runs and times them, on this machine or on one of the ``targets``.
``quantise`` writes the same bundle in int8, and ``precisions`` compares the two. ``estimate`` predicts the time on a
Jetson Nano; ``latency`` and ``report`` summarise all times.
"""
