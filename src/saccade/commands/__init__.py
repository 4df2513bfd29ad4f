"""The commands: each reads its options and calls one function of the package."""
