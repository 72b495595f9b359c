"""Benign or malignant: classifiers of crops, by architecture and fold, and what they say of crops they never saw."""

from mammoflow.classify.model import Classifier, load_classifier, predict, predict_mean, preprocess
from mammoflow.classify.predictions import predict_table
from mammoflow.classify.train import train_classifier

__all__ = [
    "Classifier",
    "load_classifier",
    "predict",
    "predict_mean",
    "predict_table",
    "preprocess",
    "train_classifier",
]
