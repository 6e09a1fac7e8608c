"""The network on a device: export to ONNX with real exits, and its latency.

``export`` cuts the network where a policy exits, ``bundle`` packs the graphs with all that is needed to run and check
them, ``tlee.jetson`` runs and times them, here or on a device, and ``latency`` and ``report`` sum it up.
"""
