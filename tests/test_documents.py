import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from memoroids.cli.main import main
from memoroids.memory import REGISTRY
from memoroids.memory.registry import COSTS, Cost

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


@pytest.mark.parametrize("page", ["concepts", "own_environment", "own_memory", "interop", "python"])
def test_the_code_of_a_guide_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    names = {"__name__": page}
    for language, code in re.findall(r"^```(python|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            capsys.readouterr()
            exec(compile(code, f"docs/{page}.md", "exec"), names)
        else:
            assert capsys.readouterr().out == code


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


def test_the_commands_of_the_documents_are_ones_that_exist(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # where the agents of the examples are found
    texts = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
    all_blocks = [block.replace("\\\n", " ") for text in texts for block in blocks(text, "")]
    said = [line for block in all_blocks for line in block.splitlines() if line.startswith("memoroids ")]
    assert len(said) >= 6
    for line in said:
        words = shlex.split(line, comments=True)[1:]
        # The options of an agent are those of its algorithm.
        at = words.index("--algorithm") if "--algorithm" in words else len(words)
        with pytest.raises(SystemExit) as stop:
            main([words[0], *words[at : at + 2], "--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--") and word != "--help"):
            assert option in out, f"{line}: {option} is not an option"


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem != "act"], ids=lambda p: p.stem)
def test_every_example_runs(path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)  # from where the examples say that they are run
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "options",
    [
        "--random-episodes 2 --num-envs 1 --batch-size 20 --buffer-size 600 --train-episodes 2",
        "--env Pendulum-v1 --algorithm ppo --steps 400 --num-envs 2 --ppo.minibatches 1",
    ],
    ids=["choices", "continuous"],
)
@pytest.mark.one_in(2)
def test_the_acting_example_plays_a_run(options, tmp_path, capsys, monkeypatch):
    main(
        shlex.split(
            f"train --memory ffm --memory-sizes trace_size 4 context_size 2 --width 8 {options} --eval-episodes 1 "
            f"--final-episodes 1 --run-dir {tmp_path / 'run'}"
        )
    )
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["act.py", str(tmp_path / "run")])
    runpy.run_path(str(ROOT / "examples" / "act.py"), run_name="__main__")
    assert re.search(r"return -?\d+\.\d{3}", capsys.readouterr().out)


def test_the_table_of_models_is_the_registry():
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(REGISTRY)


def test_the_table_of_models_says_what_they_cost():
    rows = [line.strip("|").split("|") for line in README.splitlines() if re.match(r"\| `\w+` \|", line)]
    said = {}
    for name, _, _, step, sequence, source in ([cell.strip() for cell in row] for row in rows):
        said[name.strip("`")] = Cost(step, sequence, re.sub(r"\[(.*)\]\(.*\)", r"\1", source))
    assert said == COSTS


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *[f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")]]
)
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_the_architecture_page_names_every_module_in_its_package():
    text = (ROOT / "docs" / "architecture.md").read_text()
    source = ROOT / "src" / "memoroids"
    named = []
    for package, section in re.findall(r"^### `(\w+)/`\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL):
        folder = Path() if package == "memoroids" else Path(package)
        named += [str(folder / module) for module in re.findall(r"^- `(\S+\.py)`: \S", section, re.MULTILINE)]
    modules = [str(path.relative_to(source)) for path in source.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(named) == sorted(modules)


def test_the_architecture_page_shows_the_order_of_imports_that_is_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = next(c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert blocks((ROOT / "docs" / "architecture.md").read_text(), "")[0].splitlines() == layers


def test_the_terms_of_the_glossary_stand_in_order():
    text = (ROOT / "docs" / "glossary.md").read_text()
    greek = {"ε (epsilon)": "epsilon", "λ (lambda)": "lambda"}
    terms = [greek.get(term, term).lower() for term in re.findall(r"^- \*\*(.+?)\*\*", text, re.MULTILINE)]
    assert len(terms) >= 30 and terms == sorted(terms)


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", *[f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")]])
def test_paths_that_a_page_names_exist(document):
    source = ROOT / "src" / "memoroids"
    for name in re.findall(r"`(\w+/(?:\w+/)*(?:\w+\.\w+)?|\w+\.py)`", (ROOT / document).read_text()):
        found = any((folder / name).exists() for folder in (ROOT, source.parent, source))
        assert found or any(source.rglob(name)), f"{document} names {name}, which does not exist"
