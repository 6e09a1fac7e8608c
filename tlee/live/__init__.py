"""Run the trained network on video files, cameras and streams."""
