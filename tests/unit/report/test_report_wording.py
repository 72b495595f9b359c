import pytest

from mammoflow.report.wording import percent


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.874, "87 %"), (1.0, "100 %"), (0.0149, "1 %"), (0.0096, "1 %"), (0.0094, "0.9 %"), (0.000337, "0.03 %"),
     (0.000001, "0.0001 %"), (0.0, "0 %"), (1e-9, "0 %")],
)  # fmt: skip
def test_percentages_below_one_keep_a_digit_that_counts(share, text):
    assert percent(share) == text
