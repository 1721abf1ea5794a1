"""Runs activities."""
