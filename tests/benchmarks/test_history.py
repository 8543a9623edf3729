"""Two files of measurements side by side: what is compared, what is named as a change, and files that are none."""

import json

import pytest

from memoroids.benchmarks.history import compare, read
from memoroids.benchmarks.measurement import Measurement
from memoroids.cli.main import main


def written(path, rows, **machine):
    found = {question: [row.row() for row in some] for question, some in rows.items()}
    path.write_text(json.dumps({"machine": {"cores": 2} | machine, "repeats": 3, "rows": found}))
    return path


def measured(what, seconds, limit=None):
    return Measurement(what, seconds, limits={} if limit is None else {"copy": limit})


def lines(text, what):
    return next(" ".join(line.split()) for line in text.splitlines() if line.startswith(what))


def test_a_change_is_judged_by_the_limit_where_there_is_one(tmp_path):
    old = written(tmp_path / "old.json", {"update": [measured("lru", 0.004, 0.002), measured("s5", 0.004, 0.002)]})
    new = written(
        tmp_path / "new.json",
        {"update": [measured("lru", 0.008, 0.004), measured("s5", 0.008, 0.002)], "tape": [measured("long", 1.0)]},
        cores=16,
    )
    text = compare(old, new)
    assert text.splitlines()[0].startswith("measured with cores 2 -> 16")
    assert lines(text, "lru") == "lru 4.00 ms -> 8.00 ms 2.00 -> 2.00 × its limit"  # a slower machine is no change
    assert lines(text, "s5") == "s5 4.00 ms -> 8.00 ms 2.00 -> 4.00 × its limit slower"
    assert f"only in {old}: 0, only in {new}: 1" in text


def test_without_a_limit_times_are_compared(tmp_path):
    old = written(tmp_path / "old.json", {"acting": [measured("a step", 4e-6)]})
    new = written(tmp_path / "new.json", {"acting": [measured("a step", 3e-6)]})
    text = compare(old, new)
    assert lines(text, "a step") == "a step 4.0 µs -> 3.0 µs faster"
    assert text.startswith("measured on machines of the same description")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"rows": {"update": [{"what": "x"}]}, "machine": {}}', '{"rows": 3, "machine": {}}']
)
def test_a_file_that_holds_something_else_is_named(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path} is no file of `memoroids bench --json`"):
        read(path)


def test_files_that_cannot_be_compared_are_refused_in_one_line(tmp_path, capsys):
    old = written(tmp_path / "old.json", {"acting": [measured("a step", 1.0)]})
    new = written(tmp_path / "new.json", {"update": [measured("lru", 1.0)]})
    for other, said in ((new, "no measurement in common"), (tmp_path / "none.json", "No such file")):
        with pytest.raises(SystemExit) as ended:
            main(["bench", "--compare", str(old), str(other)])
        assert ended.value.code == 2 and said in capsys.readouterr().err
    main(["bench", "--compare", str(old), str(old)])
    assert "1,000.00 ms -> 1,000.00 ms" in capsys.readouterr().out
