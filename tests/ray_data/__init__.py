"""Tests of ``clarigrpc.ray`` on a cluster of Ray, which has an environment of its own."""
