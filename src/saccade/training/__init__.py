"""Training: a loop of optimiser steps that can be stopped and resumed exactly, and what scores mean."""

from saccade.training.interruption import Interrupted
from saccade.training.loop import Trained, train
from saccade.training.metrics import accuracy, half_width
from saccade.training.settings import TrainingSettings

__all__ = ["Interrupted", "Trained", "TrainingSettings", "accuracy", "half_width", "train"]
