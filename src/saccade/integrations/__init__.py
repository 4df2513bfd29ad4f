"""Saccade in other libraries: each a module that imports its library, and an extra that installs it."""
