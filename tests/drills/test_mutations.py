from drills.mutate_dicom import MOST_BYTES, MUTATIONS, drill, valid_files


def test_every_damaged_file_gives_a_row_and_a_picture_or_a_reason():
    result = drill(300, seed=7)
    assert result["failures"] == []
    assert result["most_mb"] < MOST_BYTES / 2**20
    seen = {name for name, outcomes in result["outcomes"].items() if outcomes}
    assert seen >= set(MUTATIONS) - {"deflate bomb"}
    # damage there is: but for small one's, a file is excluded or gives no picture
    assert any(outcome.endswith("picture") for outcome in result["outcomes"]["flipped bits, pixels"])
    assert result["outcomes"]["truncated"].keys() & {"ok -> truncated_pixel_data", "ok -> no_pixel_data"}


def test_the_files_are_whole_before(tmp_path):
    from mammoflow.images import render

    files = valid_files()
    assert len(files) == 16
    for number, content in enumerate(files.values()):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        picture, _ = render(path, {"mode": "dicom", "index": 0})
        assert picture.shape == (40, 32)
