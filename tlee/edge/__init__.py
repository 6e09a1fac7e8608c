"""The network on a device: export with real exits, and its latency here, there and by estimate.

``export`` cuts the network where a policy exits, ``bundle`` packs the graphs with all that is needed to run and check
them, and ``runner`` runs and times them, on this machine or on one of the ``targets``. ``estimate`` says what a
Jetson Nano would take, ``latency`` and ``report`` sum it up.
"""
