"""The trained network on videos, cameras and streams."""
