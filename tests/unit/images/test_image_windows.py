import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mammoflow.errors import RenderError
from mammoflow.images import render
from mammoflow.images.rendering import _percentiles, draw
from mammoflow.images.sampling import counts
from mammoflow.images.stored import Stored
from mammoflow.images.windows import grey_table, window_linear, window_linear_exact, window_sigmoid


def all_values(bits, signed):
    low = -(2 ** (bits - 1)) if signed else 0
    return np.arange(low, low + 2**bits)


def stored_of(bits=12, signed=False, photometric="MONOCHROME2", **attributes):
    header = Dataset()
    header.BitsStored, header.PixelRepresentation, header.PhotometricInterpretation = bits, int(signed), photometric
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    patterns = np.arange(2**bits).astype(np.uint16).reshape(-1, 4)
    return Stored(patterns, bits, signed, photometric, header)


def levels(stored, window, machine="unknown"):
    """Grey level of each stored value, lowest value first."""
    seen = counts(stored.patterns, stored.bits, None, 1)
    table, _ = grey_table(stored, window, machine, seen)
    return table[np.argsort(stored.values())]


def lut_item(entries, first=0, depth=12):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, depth]
    item.LUTData = list(entries)
    item["LUTData"].VR = item["LUTDescriptor"].VR = "US"
    return item


def rounded(grey):
    return np.floor(np.round(grey, 6) + 0.5).astype(np.uint8)


def pydicom_levels(stored):
    """Grey levels by pydicom's own functions in float64, inverted afterwards, over the range its window gives."""
    values = all_values(stored.bits, stored.signed)
    rescaled = apply_modality_lut(values, stored.header)
    ends = apply_modality_lut(values[[0, -1]], stored.header).astype(float)
    share = (apply_windowing(rescaled, stored.header) - ends[0]) / (ends[1] - ends[0])
    return rounded(255 * (1 - share if stored.photometric_interpretation == "MONOCHROME1" else share))


RESCALES = [{}, {"RescaleSlope": 2.5, "RescaleIntercept": -100.25}]
CASES = list(
    itertools.product(
        (8, 10, 12, 14, 16),
        (False, True),
        RESCALES,
        ("MONOCHROME1", "MONOCHROME2"),
        ("LINEAR", "LINEAR_EXACT", "SIGMOID"),
    )
)


@pytest.mark.parametrize(("bits", "signed", "rescale", "photometric", "function"), CASES)
def test_file_window_equals_pydicom(bits, signed, rescale, photometric, function):
    middle = float(np.median(all_values(bits, signed))) * rescale.get("RescaleSlope", 1)
    stored = stored_of(
        bits,
        signed,
        photometric,
        VOILUTFunction=function,
        WindowCenter=middle + 3,
        WindowWidth=2.0**bits / 3,
        **rescale,
    )
    assert np.array_equal(levels(stored, {"mode": "dicom"}), pydicom_levels(stored))


def test_linear_by_hand():
    # c=2048, w=4096 (PS3.3 C.11.2.1.2.1, note): 0 -> 0, 4095 -> 1, between them a straight line
    x = np.array([0.0, 2047.5, 4095.0])
    assert window_linear(x, 2048, 4096) == pytest.approx([0, 0.5, 1])
    # c=2048, w=1 is a threshold: 2047 -> black, 2048 -> white
    assert window_linear(np.array([2047.0, 2048.0]), 2048, 1).tolist() == [0, 1]
    # c=0, w=100: from -50 to 49
    assert window_linear(np.array([-51.0, -50.0, -0.5, 49.0, 50.0]), 0, 100) == pytest.approx([0, 0, 0.5, 1, 1])


def test_linear_exact_by_hand():
    x = np.array([-1.0, 0.0, 2048.0, 4096.0, 5000.0])
    assert window_linear_exact(x, 2048, 4096) == pytest.approx([0, 0, 0.5, 1, 1])


def test_sigmoid_by_hand():
    # at c: 1/2; a quarter width above: 1 / (1 + e^-1)
    x = np.array([2000.0, 2100.0, -1e9, 1e9])
    assert window_sigmoid(x, 2000, 400) == pytest.approx([0.5, 1 / (1 + np.exp(-1)), 0, 1])


def test_voi_lut_by_hand_and_on_request():
    entries = [0, 1000, 2000, 4095]
    stored = stored_of(4, VOILUTSequence=[lut_item(entries, first=2)], WindowCenter=8, WindowWidth=16)
    by_lut = levels(stored, {"mode": "dicom", "lut": True})
    assert by_lut[:6].tolist() == [0, 0, 0, round(1000 / 4095 * 255), round(2000 / 4095 * 255), 255]
    assert (by_lut[6:] == 255).all()
    assert levels(stored, {"mode": "dicom"}).tolist() == rounded(np.arange(16) / 15 * 255).tolist()


def test_voi_lut_is_taken_when_there_is_no_window():
    stored = stored_of(8, VOILUTSequence=[lut_item([0] * 128 + [255] * 128, depth=8), lut_item(range(256), depth=8)])
    assert set(levels(stored, {"mode": "dicom"})) == {0, 255}
    assert levels(stored, {"mode": "dicom", "index": 1}).tolist() == list(range(256))


def test_modality_lut_by_hand():
    stored = stored_of(8, ModalityLUTSequence=[lut_item([0, 65535], first=100, depth=16)])
    greys = levels(stored, {"mode": "none"})
    assert greys[:101].tolist() == [0] * 101
    assert greys[101:].tolist() == [255] * 155


def test_none_keeps_8_bit_values_and_spreads_others():
    assert levels(stored_of(8), {"mode": "none"}).tolist() == list(range(256))
    twelve = levels(stored_of(12), {"mode": "none"})
    assert twelve.tolist() == [int(value * 255 / 4095 + 0.5) for value in range(4096)]


def test_negative_slope_turns_the_picture_over():
    greys = levels(stored_of(8, RescaleSlope=-1, RescaleIntercept=255), {"mode": "none"})
    assert greys.tolist() == list(range(255, -1, -1))


@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE", None])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_inversion_happens_once(photometric, shape):
    attributes = {"PresentationLUTShape": shape} if shape else {}
    greys = levels(stored_of(8, photometric=photometric, **attributes), {"mode": "none"})
    inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    assert greys[0] == (255 if inverted else 0)


def test_second_window_and_its_record():
    stored = stored_of(12, WindowCenter=[2000, 100], WindowWidth=[4000, 201])
    table, used = grey_table(stored, {"mode": "dicom", "index": 1}, "", np.zeros(4096, int))
    assert used == {"mode": "dicom", "index": 1, "function": "LINEAR", "center": 100, "width": 201}
    assert (table[0], table[199], table[200]) == (1, 254, 255)


def test_window_by_explanation():
    explained = {"WindowCenter": [2000, 100], "WindowWidth": [4000, 201]}
    stored = stored_of(12, WindowCenterWidthExplanation=["NORMAL", "Harder"], **explained)
    for wanted in ("harder", " HARDER "):
        table, used = grey_table(stored, {"mode": "dicom", "explanation": wanted}, "", np.zeros(4096, int))
        assert (used["index"], used["center"], table[199]) == (1, 100, 254)
    item = lut_item(range(256), depth=8)
    item.LUTExplanation = "SOFT"
    both = stored_of(8, WindowCenterWidthExplanation="NORMAL", WindowCenter=5, WindowWidth=9, VOILUTSequence=[item])
    assert levels(both, {"mode": "dicom", "explanation": "soft"}).tolist() == list(range(256))
    for stored in (both, stored_of(8, WindowCenter=5, WindowWidth=9)):
        with pytest.raises(RenderError, match="explanation") as caught:
            levels(stored, {"mode": "dicom", "explanation": "lung"})
        assert caught.value.reason == "no_such_window"


def test_fixed_window_and_presets_by_machine():
    preset = {"mode": "fixed", "presets": {"Alpha 1": {"center": 128, "width": 1}, "Beta": {"center": 64, "width": 1}}}
    assert np.flatnonzero(np.diff(levels(stored_of(8), preset, "Alpha 1").astype(int))).tolist() == [127]
    assert np.flatnonzero(np.diff(levels(stored_of(8), preset, "Beta").astype(int))).tolist() == [63]
    with pytest.raises(RenderError, match="Gamma") as caught:
        levels(stored_of(8), preset, "Gamma")
    assert caught.value.reason == "no_preset"


@pytest.mark.parametrize(
    ("attributes", "window", "reason"),
    [
        ({"WindowCenter": 5, "WindowWidth": 0}, {"mode": "dicom"}, "bad_window"),
        ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, {"mode": "dicom"}, "bad_window"),
        ({"WindowCenter": 5, "WindowWidth": 9}, {"mode": "dicom", "index": 1}, "no_such_window"),
        ({"VOILUTSequence": [Dataset()]}, {"mode": "dicom"}, "bad_voi_lut"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, {"mode": "none"}, "bad_modality_lut"),
    ],
)
def test_unusable_windows_are_refused(attributes, window, reason):
    with pytest.raises(RenderError) as caught:
        levels(stored_of(8, **attributes), window)
    assert caught.value.reason == reason


def test_padding_value_and_range_are_black():
    greys = levels(stored_of(8, photometric="MONOCHROME1", PixelPaddingValue=250), {"mode": "none"})
    assert greys[250] == 0
    assert greys[249] == 6
    assert greys[251] == 4
    ranged = levels(stored_of(8, PixelPaddingValue=200, PixelPaddingRangeLimit=190), {"mode": "none"})
    assert not ranged[190:201].any()
    assert ranged[189] == 189
    assert ranged[201] == 201


WINDOWS = [
    {"mode": "dicom"},
    {"mode": "dicom", "lut": True},
    {"mode": "fixed", "center": 2048, "width": 1500},
    {"mode": "fixed", "center": 2047.5, "width": 1001, "function": "LINEAR_EXACT"},
    {"mode": "none"},
    {"mode": "percentile", "low": 1, "high": 99.5},
]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", WINDOWS)
def test_monochrome1_twin_is_identical(mammogram, save, breast_picture, window, function):
    # PS3.3: the window works before the inversion, so a twin's window is mirrored with its values; LINEAR counts from
    # the lower edge of a value (c - 0.5), the others from its middle
    mirror = 4096 if function == "LINEAR" else 4095
    center, width = 1700, 2500
    lut = np.linspace(0, 1, 4096) ** 2 * 4095
    twin_window = dict(window)
    if window["mode"] == "fixed" and window.get("function", "LINEAR") == "LINEAR":
        twin_window["center"] = 4096 - window["center"]
    elif window["mode"] == "fixed":
        twin_window["center"] = 4095 - window["center"]
    two = mammogram(
        breast_picture, WindowCenter=center, WindowWidth=width, VOILUTFunction=function,
        VOILUTSequence=[lut_item(np.rint(lut).astype(int).tolist())],
    )  # fmt: skip
    one = mammogram(
        4095 - breast_picture, PhotometricInterpretation="MONOCHROME1", WindowCenter=mirror - center, WindowWidth=width,
        VOILUTFunction=function, VOILUTSequence=[lut_item((4095 - np.rint(lut)[::-1]).astype(int).tolist())],
    )  # fmt: skip
    first, record = render(save(two, "two.dcm"), window)
    second, twin_record = render(save(one, "one.dcm"), twin_window)
    assert np.array_equal(first, second)
    assert record.breast_box == twin_record.breast_box
    assert len(np.unique(first)) > 20


def test_percentile_window_spans_the_breast(mammogram, save, breast_picture):
    picture, record = render(save(mammogram(breast_picture)), {"mode": "percentile", "low": 2, "high": 98})
    used = json.loads(record.window)
    assert (picture[breast_picture >= used["white"]] == 255).all()
    assert (picture[breast_picture <= used["black"]] == 0).all()
    assert 850 < used["black"] < 1200
    assert 3300 < used["white"] < 3750


@given(
    bits=st.integers(8, 16), signed=st.booleans(), center=st.floats(-1e5, 1e5), width=st.floats(1, 1e5),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)  # fmt: skip
def test_windows_never_fall(bits, signed, center, width, function):
    greys = levels(stored_of(bits, signed), {"mode": "fixed", "center": center, "width": width, "function": function})
    assert (np.diff(greys.astype(int)) >= 0).all()


def grey_by_reference(value, case):
    """Grey level of one stored value, worked out in float64 step by step (PS3.3 C.11.1 to C.11.2, PS3.4 N.2)."""
    x, low, high = (v * case["slope"] + case["intercept"] for v in (value, *case["ends"]))
    low, high = min(low, high), max(low, high)
    c, w = case["center"], case["width"]
    if case["function"] == "LINEAR":
        share = (0 if x <= c - 0.5 else 1) if w == 1 else min(max((x - (c - 0.5)) / (w - 1) + 0.5, 0), 1)
    elif case["function"] == "LINEAR_EXACT":
        share = min(max((x - c) / w + 0.5, 0), 1)
    elif case["function"] == "SIGMOID":
        share = 1 / (1 + np.exp(min(-4 * (x - c) / w, 700)))
    else:
        share = (x - low) / (high - low)
    if case["padding"] is not None and min(case["padding"]) <= value <= max(case["padding"]):
        return 0
    grey = 255 * (1 - share if case["photometric"] == "MONOCHROME1" else share)
    return int(np.floor(np.round(grey, 6) + 0.5))


@given(
    bits=st.integers(2, 16), signed=st.booleans(), slope=st.sampled_from([1.0, -1.0, 0.25, 2.5]),
    intercept=st.sampled_from([0.0, -1024.0, 17.5]), photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "none"]), seed=st.integers(0, 2**32 - 1),
    padded=st.booleans(), unit_width=st.booleans(),
)  # fmt: skip
def test_pixels_equal_a_float64_reference(
    bits, signed, slope, intercept, photometric, function, seed, padded, unit_width
):
    rng = np.random.default_rng(seed)
    values = all_values(bits, signed)
    picked = rng.choice(values, 40)
    center = float(np.round(rng.uniform(values[0], values[-1]) * slope + intercept, 3))
    width = 1.0 if unit_width else float(np.round(rng.uniform(1, 2.0**bits * abs(slope) + 1), 3))
    padding = sorted(rng.choice(values, 2).tolist()) if padded else None
    case = {"slope": slope, "intercept": intercept, "ends": (values[0], values[-1]), "center": center, "width": width,
            "function": function, "photometric": photometric, "padding": padding}  # fmt: skip
    attributes = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    if padded:
        attributes |= {"PixelPaddingValue": padding[0], "PixelPaddingRangeLimit": padding[1]}
    stored = stored_of(bits, signed, photometric, **attributes)
    patterns = (picked & (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16).reshape(5, 8)
    stored = Stored(patterns, bits, signed, photometric, stored.header)
    fixed = {"mode": "fixed", "center": center, "width": width, "function": function}
    drawn, record = draw(stored, {"mode": "none"} if function == "none" else fixed)
    assert drawn.ravel().tolist() == [grey_by_reference(value, case) for value in picked.tolist()]
    assert record.stored_range == (picked.min(), picked.max())


def test_greys_are_numpys_percentiles():
    seen = np.random.default_rng(1).integers(0, 9, 256)
    greys = np.repeat(np.arange(256), seen)
    assert _percentiles(seen) == pytest.approx(np.percentile(greys, [5, 50, 95]))


@settings(deadline=None)  # the first one compiles
@given(
    bits=st.sampled_from([2, 8, 12, 16]), signed=st.booleans(), depth=st.sampled_from([8, *range(10, 17)]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]), entries=st.integers(2, 300),
    offset=st.integers(-50, 50), padded=st.booleans(), modality=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_luts_equal_a_float64_reference(bits, signed, photometric, depth, entries, offset, padded, modality, seed):
    rng = np.random.default_rng(seed)
    values = all_values(bits, signed)
    first = int(np.clip(values[len(values) // 2] + offset, 0, 2**15 - 1))  # US, as both LUTs' values here
    lut = np.sort(rng.integers(0, 2**depth, entries))
    steps = rng.integers(0, 2**12, entries)
    steps[:2] = 0, 4095  # a modality LUT of one value gives no picture
    padding = int(rng.choice(values)) if padded else None
    stored = stored_of(bits, signed, photometric, VOILUTSequence=[lut_item(lut.tolist(), first, depth)])
    if modality:
        stored.header.ModalityLUTSequence = [lut_item(steps.tolist(), 0 if signed else int(values[0]), 16)]
    if padded:
        stored.header.PixelPaddingValue = padding
    x = values
    if modality:  # PS3.3 C.11.1.1: values beyond the table take its first or last entry
        x = steps[np.clip(values - (0 if signed else values[0]), 0, entries - 1)]
    share = lut[np.clip(x - first, 0, entries - 1)] / (2.0**depth - 1)
    expected = rounded(255 * (1 - share if photometric == "MONOCHROME1" else share))
    expected[values == padding] = 0
    assert np.array_equal(levels(stored, {"mode": "dicom"}), expected)


@given(
    bits=st.integers(8, 16), signed=st.booleans(), photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    slope=st.sampled_from([1.0, -1.0, 2.5]), padded=st.booleans(), low=st.integers(0, 20), high=st.integers(80, 100),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_percentiles_equal_a_float64_reference(bits, signed, photometric, slope, padded, low, high, seed):
    rng = np.random.default_rng(seed)
    values = all_values(bits, signed)
    picked = rng.choice(values, 60)
    picked[:2] = values[0], values[-1]
    padding = int(picked[5]) if padded else None
    header = stored_of(bits, signed, photometric, RescaleSlope=slope, RescaleIntercept=-7.0).header
    if padded:
        header.PixelPaddingValue = padding
    patterns = (picked & (2**bits - 1)).astype(np.uint16).reshape(6, 10)
    stored = Stored(patterns, bits, signed, photometric, header)
    seen = np.bincount(patterns.ravel(), minlength=2**bits)
    table, used = grey_table(stored, {"mode": "percentile", "low": low, "high": high}, "unknown", seen)
    x = picked * slope - 7
    ends = np.array([values[0], values[-1]]) * slope - 7
    bright = ends.sum() - x if photometric == "MONOCHROME1" else x
    inside = bright if padding is None else bright[picked != padding]
    black, white = np.percentile(inside, [low, high], method="inverted_cdf")
    assert (used["black"], used["white"]) == (black, white)
    expected = np.floor(np.round(np.clip((bright - black) / (white - black), 0, 1) * 255, 6) + 0.5)
    expected[picked == padding] = 0
    assert table[patterns].ravel().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("syntax", "order"), [(ExplicitVRLittleEndian, "<"), (ImplicitVRLittleEndian, "<"), (ExplicitVRBigEndian, ">")]
)
def test_lut_stored_as_words(mammogram, save, breast_picture, syntax, order):
    entries = np.linspace(0, 1023, 4001).astype(np.uint16)
    item = lut_item([0], 0, 10)
    item.LUTDescriptor = [len(entries), 0, 10]
    item.add_new("LUTData", "OW", entries.astype(f"{order}u2").tobytes())
    header = mammogram(breast_picture, syntax=syntax, VOILUTSequence=[item])
    header.PixelData = breast_picture.astype(f"{order}u2").tobytes()
    picture, record = render(save(header), {"mode": "dicom"})
    assert np.array_equal(picture, rounded(entries[breast_picture] / 1023 * 255))
    assert '"function": "LUT"' in record.window
    item.LUTDescriptor = [len(entries) + 1, 0, 10]
    with pytest.raises(RenderError, match="4001 entries, 4002 are announced"):
        render(save(header), {"mode": "dicom"})
