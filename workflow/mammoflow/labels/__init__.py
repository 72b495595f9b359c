"""Labels: the expert's frames of any format, hidden truth, patient-wise folds, the shard plan and YOLO label files."""
