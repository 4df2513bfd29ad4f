"""The ways to compute attention under a pattern. All give the same result; they differ in cost."""
