"""Whole models: from tokens to what a task asks for."""

from saccade.models.classifier import ClassifierSettings, SequenceClassifier
from saccade.models.language_model import LanguageModel, LanguageModelSettings
from saccade.models.pretrained import Pretrained, tokenizer_of
from saccade.models.seq2seq import BASE, BIG, Seq2Seq, Seq2SeqSettings, Source
from saccade.models.tagger import Tagger, TaggerSettings, WordSettings

__all__ = [
    "BASE",
    "BIG",
    "ClassifierSettings",
    "LanguageModel",
    "LanguageModelSettings",
    "Pretrained",
    "Seq2Seq",
    "Seq2SeqSettings",
    "SequenceClassifier",
    "Source",
    "Tagger",
    "TaggerSettings",
    "WordSettings",
    "tokenizer_of",
]
