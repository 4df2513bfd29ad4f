"""What a trained model's own weights say about the choice of a cheaper attention: `saccade show RUN`."""
