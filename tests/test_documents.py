import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from memoroids.cli.main import main
from memoroids.memory import REGISTRY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_the_first_that_the_readme_prints():
    commands = [line for line in README.splitlines() if line.startswith("pip install -e")]
    assert commands == ["pip install -e . && memoroids train", "pip install -e '.[test]' && pytest"]


@pytest.mark.parametrize("number", range(len(blocks(README, "python"))))
def test_the_code_of_the_readme_runs(number):
    exec(compile(blocks(README, "python")[number], f"README.md block {number}", "exec"), {"__name__": "readme"})


def test_the_model_of_the_readme_fits_in_25_lines_and_trains(tmp_path, monkeypatch, capsys):
    code = blocks(README, "python")[0]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 25
    (tmp_path / "my_memory.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    main(
        shlex.split(
            "train --memory my_memory:MaxMemory --width 8 --random-episodes 2 --train-episodes 2 --num-envs 1 "
            "--batch-size 20 --buffer-size 600 --eval-episodes 1 --final-episodes 1 --run-dir run"
        )
    )
    assert "final return" in capsys.readouterr().out
    assert (tmp_path / "run" / "summary.json").exists()


def test_the_commands_of_the_documents_are_ones_that_exist(capsys):
    texts = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
    all_blocks = [block.replace("\\\n", " ") for text in texts for block in blocks(text, "")]
    said = [line for block in all_blocks for line in block.splitlines() if line.startswith("memoroids ")]
    assert len(said) >= 6
    for line in said:
        words = shlex.split(line, comments=True)[1:]
        with pytest.raises(SystemExit) as stop:
            main([words[0], "--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--") and word != "--help"):
            assert option in out, f"{line}: {option} is not an option"


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem != "act"], ids=lambda p: p.stem)
def test_every_example_runs(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_the_acting_example_plays_a_run(tmp_path, capsys, monkeypatch):
    main(
        shlex.split(
            "train --memory ffm --memory-sizes trace_size 4 context_size 2 --width 8 --random-episodes 2 "
            "--train-episodes 2 --num-envs 1 --batch-size 20 --buffer-size 600 --eval-episodes 1 "
            f"--final-episodes 1 --run-dir {tmp_path / 'run'}"
        )
    )
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["act.py", str(tmp_path / "run")])
    runpy.run_path(str(ROOT / "examples" / "act.py"), run_name="__main__")
    assert re.search(r"return -?\d\.\d{3}", capsys.readouterr().out)


def test_the_table_of_models_is_the_registry():
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(REGISTRY)


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *[f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")]]
)
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_the_architecture_page_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text()
    source = ROOT / "src" / "memoroids"
    rooms = {p.name for p in source.glob("*.py")} - {"__init__.py"}
    rooms |= {f"{p.name}/" for p in source.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    named = set(re.findall(r"^  (\S+)", text, re.MULTILINE))
    assert rooms <= named


def test_a_room_imports_only_from_rooms_above_it():
    order = re.findall(r"^  (\w+)(?:\.py|/)", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    source = ROOT / "src" / "memoroids"
    for path in source.rglob("*.py"):
        room = path.relative_to(source).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        # Imports inside functions keep the command line fast; they obey the same order.
        for imported in re.findall(r"^\s*from memoroids(?:\.(\w+)\S*)? import (\w+)", path.read_text(), re.MULTILINE):
            below = imported[0] or imported[1]
            if below in order:
                assert order.index(below) <= order.index(room), f"{path.name} imports {below}, which stands below it"


def test_importing_the_package_pulls_no_environment_and_no_checkpoint_library():
    heavy = ("gymnasium", "popgym", "orbax", "matplotlib", "tyro", "optax")
    code = f"import sys, memoroids; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
