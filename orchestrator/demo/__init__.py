"""The main job, shipped with the package."""
