"""The workflows and the training pipeline agree with the code that they run and with docs/pipelines.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from earmark_spotter import SpotterModel

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/pipelines.md").read_text()
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")
}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())
CODE = "training/earmark_training"


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", ())]


def section(name: str) -> str:
    return re.split(r"^## ", PAGE.split(f"\n## `{name.removesuffix('.yml')}`\n")[1], flags=re.MULTILINE)[0]


def test_the_page_describes_exactly_the_workflows():
    assert {f"{name}.yml" for name in re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE)} == set(WORKFLOWS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_page_names_the_artifacts_and_inputs_of_a_workflow(name: str):
    workflow, text = WORKFLOWS[name], section(name)
    uploads = [step["with"]["name"] for step in steps(workflow) if "upload-artifact" in step.get("uses", "")]
    artifacts = {name.split("-${{")[0] for name in uploads}
    assert set(re.findall(r"artifact\s+`(\w+)`", text)) == artifacts
    # YAML 1.1 reads the key `on` as true.
    triggers = [trigger for trigger in workflow[True].values() if isinstance(trigger, dict)]
    inputs = {one for trigger in triggers for one in trigger.get("inputs", ())}
    assert set(re.findall(r"input\s+`(\w+)`", text)) == inputs


def test_the_page_names_exactly_the_variables_and_secrets():
    used = {
        name
        for path in (ROOT / ".github/workflows").glob("*.yml")
        for name in re.findall(r"\b(?:vars|secrets)\.(\w+)", path.read_text())
    }
    assert set(re.findall(r"^\| (?:variable|secret) `(\w+)`", PAGE, re.MULTILINE)) == used - {"GITHUB_TOKEN"}


def test_the_targets_and_scripts_of_the_workflows_and_the_page_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [
        PAGE,
        *(step["run"] for workflow in WORKFLOWS.values() for step in steps(workflow) if "run" in step),
    ]
    for text in texts:
        assert set(re.findall(r"\bmake ([a-z][\w-]+)", text)) <= targets
        for script in re.findall(r"\bscripts/\w+\.sh", text):
            assert (ROOT / script).is_file(), script


def imports(path: Path) -> set[Path]:
    """Return the files of the training package that this file imports, directly or not, and itself."""
    reached, new = set(), {path}
    while new:
        reached |= new
        nodes = [node for one in new for node in ast.walk(ast.parse(one.read_text()))]
        froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        names = {node.module or "" for node in froms}
        names |= {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        files = {ROOT / "training" / f"{name.replace('.', '/')}.py" for name in names}
        new = {file for file in files if file.is_file()} - reached
    return reached


@pytest.mark.parametrize(
    ("stage", "modules"),
    [("prepare", ["data/corpus.py"]), ("train", ["data/corpus.py", "model/train.py"])],
)
def test_a_stage_is_out_of_date_when_the_code_that_it_runs_changes(stage: str, modules: list[str]):
    code = {ROOT / one for one in STAGES[stage]["deps"] if one.startswith(CODE)}
    assert code == set().union(*(imports(ROOT / CODE / module) for module in modules))


def test_the_parameters_are_those_of_the_bundled_model():
    card = (ROOT / "server/earmark_spotter/models/MODEL_CARD.md").read_text()
    exported = re.search(r"^earmark-train export .* --version (\S+) --fa-per-hour (\S+)$", card, re.MULTILINE)
    assert exported, "the model card does not show the command that exported the model"
    export = PARAMETERS["export"]
    assert (export["version"], f"{export['fa-per-hour']:g}") == (exported[1], exported[2])
    prepared = re.search(r"^earmark-train prepare (.*)$", card, re.MULTILINE)
    assert prepared
    assert re.findall(r"--(\w+)", prepared[1]) == list(PARAMETERS["prepare"])
    added = re.search(
        r"^earmark-train verifier .* --passes (\d+) --examples (\d+) --encoded-steps (\d+) "
        r"--fa-per-hour (\S+)$",
        card,
        re.MULTILINE,
    )
    assert added, "the model card does not show the command that added the verifier"
    verifier = PARAMETERS["verifier"]
    counts = [verifier[name] for name in ("passes", "examples", "encoded-steps")]
    assert counts == [int(added[i]) for i in (1, 2, 3)]
    last = re.search(r"^earmark-train thresholds .* --version (\S+) --fa-per-hour (\S+)$", card, re.MULTILINE)
    assert last, "the model card does not show the command that chose the thresholds"
    rate = f"{verifier['fa-per-hour']:g}"
    assert (verifier["version"], rate, rate) == (last[1], last[2], added[4])
    assert f"; seed {PARAMETERS['evaluate']['seed']}. {export['name']} {verifier['version']}" in card
    trained = re.search(r"^earmark-train train --preset (\S+)", card, re.MULTILINE)
    assert trained
    assert PARAMETERS["train"]["preset"] == trained[1]
    meta = SpotterModel.load().metadata
    assert (export["name"], verifier["version"]) == (meta.name, meta.version)
    assert PARAMETERS["train"]["keywords"].split(",") == list(meta.keyword_names)


def test_the_parameters_are_the_default_recipe_and_options_that_the_commands_have():
    presets = pytest.importorskip("earmark_training.model.recipe", exc_type=ImportError).PRESETS
    from earmark_training.command_line import build_parser

    recipe, chosen = presets[PARAMETERS["train"]["preset"]], PARAMETERS["train"]
    assert (",".join(map(str, recipe.cycles)), recipe.seed, ",".join(recipe.keywords)) == (
        chosen["epochs"],
        chosen["seed"],
        chosen["keywords"],
    )
    for stage, options in PARAMETERS.items():
        words = [f"--{name}={value}" for name, value in options.items()]
        command = STAGES[stage]["cmd"].replace(f"${{{stage}}}", "").split()
        build_parser().parse_args([*command[1:], *words])  # ends the test with a message otherwise
        assert STAGES[stage]["params"] == [stage]


def test_tags_move_only_after_every_test_of_the_images():
    jobs = WORKFLOWS["image.yml"]["jobs"]
    assert set(jobs["tag"]["needs"]) == {*jobs} - {"build", "tag"}
    for name, job in jobs.items():
        commands = " ".join(step.get("run", "") for step in job.get("steps", ()))
        assert ("imagetools create" in commands) == (name == "tag")
        for step in job.get("steps", ()):
            assert "push" not in step.get("with", {}), "an image is pushed by its digest alone"
            assert "push-by-digest=true" in step.get("with", {}).get("outputs", "push-by-digest=true")


def test_a_release_publishes_only_what_was_tested():
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert jobs["image"]["uses"] == "./.github/workflows/image.yml"
    assert set(jobs["github"]["needs"]) == {"image", "packages"}
    assert jobs["pypi"]["needs"] == "github"
    assert all(jobs[name]["needs"] == "version" for name in ("image", "packages"))
