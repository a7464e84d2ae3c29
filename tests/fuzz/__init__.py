"""Targets for a fuzzer, one a reader, run by hand; see each. tests/answers/test_fuzz.py runs them shortly."""
