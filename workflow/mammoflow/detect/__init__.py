"""Lesion detectors: training a fold, frames in every picture out of fold, thresholds for mining.

`train` trains, `model` rebuilds a trained detector from its file, `preprocess` brings a picture to a model's input,
`infer` frames pictures, `shard` a shard's pictures out of fold, `thresholds` chooses the mining thresholds.

Ultralytics reads its environment when it is imported, so it is silenced here, before any module of the stage is.
"""

from mammoflow.detect.offline import go_offline, import_unpatched

go_offline()
import_unpatched()
