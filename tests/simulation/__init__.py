"""Whole clusters from one seed: coordinators, workers and clients on the simulated log, with all faults.

``python -m tests.simulation SEED`` repeats one seed and tells what happened.
"""
