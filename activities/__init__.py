"""Ready activities of the examples: merchant onboarding and order fulfilment.

Import them as ``orchestrator.contrib``, in a checkout and from the wheel alike. Each makes its effect
under ``activity.info().idempotency_key``, so an attempt that is repeated, because the process died
before its result was recorded, changes nothing twice.
"""
