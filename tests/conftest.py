"""Settings that all tests share."""

import hypothesis

# Timings never decide a test: the machines that run these are shared and slow.
hypothesis.settings.register_profile("passk_jax", deadline=None)
hypothesis.settings.load_profile("passk_jax")
