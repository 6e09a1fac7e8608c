"""The network on a device: export to ONNX with real exits, the loop that runs it, and its latency.

``export`` cuts the network where a policy exits, ``engine`` runs the graphs, ``latency`` times them.
"""
