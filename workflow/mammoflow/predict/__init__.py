"""Predict: frozen models on another directory of images, with or without truth; nothing is trained.

`request` checks what was asked for and which models there are (light: the workflow imports it), `frozen` takes the
images through the first stages, `run` goes all the way to scores and figures, `summary` says them in words.
"""
