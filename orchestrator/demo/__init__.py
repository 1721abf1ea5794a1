"""The main job, shipped with the package: two business processes, and a demonstration that kills them.

``onboarding`` and ``orders`` are what a user writes: start here. ``command`` is ``orchestrator demo``.
"""
