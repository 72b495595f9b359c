"""Benign or malignant: classifiers of crops, by architecture and fold, and what they say of crops they never saw."""

from mammoflow.classify.model import Classifier, Scores, load_classifier, mean_scores, predict, preprocess
from mammoflow.classify.predictions import predict_table, score_frames
from mammoflow.classify.pretrain import pretrain_classifier
from mammoflow.classify.train import train_classifier

__all__ = [
    "Classifier",
    "Scores",
    "load_classifier",
    "mean_scores",
    "predict",
    "predict_table",
    "preprocess",
    "pretrain_classifier",
    "score_frames",
    "train_classifier",
]
