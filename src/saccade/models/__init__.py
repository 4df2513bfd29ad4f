"""Whole models: from tokens to what a task asks for."""

from saccade.models.classifier import ClassifierSettings, SequenceClassifier

__all__ = ["ClassifierSettings", "SequenceClassifier"]
