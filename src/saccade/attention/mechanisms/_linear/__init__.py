"""The feature maps of `linear`."""
