"""What ``clarigrpc.ray`` is made of: modules that import Ray and PyArrow, but ``inputs_report``."""
