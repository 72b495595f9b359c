#!/bin/sh
# Written by envs/generate.py. What asks for opencv-python, installed without it.
python -m pip install --no-deps --require-hashes -r /dev/stdin <<'PINS'
ultralytics==8.4.190 \
    --hash=sha256:bd309728efa168af64d39040136828edd2dbcb4aeceb4510bdff4f3ca0ea01b8 \
    --hash=sha256:c7a0ebb21d10f1de98682b6a4dc22bc0d1d0634b9398c086bd03b1e5bf40cbc3
PINS
