"""Phantom hospitals: mammograms as DICOM files, an expert's annotations and the hidden truth, all decided by a seed.

The pictures imitate what makes mammograms hard, tissue that hides lesions and machines that differ, and not anatomy in
detail.
"""

from mammoflow.phantom.hospital import generate
from mammoflow.phantom.machines import MACHINES

__all__ = ["MACHINES", "generate"]
