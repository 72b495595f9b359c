"""Annotation formats, one module each: `read` gives the frames of one entry of a data set's `annotations`."""
