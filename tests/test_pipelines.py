"""The workflows and the training pipeline, held to what they call and to the page that tells of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_the_page_tells_of_every_workflow_and_of_no_other():
    assert {f"{name}.yml" for name in re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE)} == set(WORKFLOWS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_page_names_what_a_workflow_leaves_and_takes(name: str):
    workflow, text = WORKFLOWS[name], section(name)
    left = {step["with"]["name"] for step in steps(workflow) if "upload-artifact" in step.get("uses", "")}
    assert set(re.findall(r"artifact\s+`(\w+)`", text)) == left
    # YAML 1.1 reads the key `on` as true.
    inputs = {one for trigger in workflow[True].values() for one in (trigger or {}).get("inputs", ())}
    assert set(re.findall(r"input\s+`(\w+)`", text)) == inputs


def test_the_page_names_every_variable_and_secret_and_no_other():
    used = {
        name
        for path in (ROOT / ".github/workflows").glob("*.yml")
        for name in re.findall(r"\b(?:vars|secrets)\.(\w+)", path.read_text())
    }
    assert set(re.findall(r"^\| (?:variable|secret) `(\w+)`", PAGE, re.MULTILINE)) == used - {"GITHUB_TOKEN"}


def test_workflows_and_the_page_run_only_targets_and_scripts_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [
        PAGE,
        *(step["run"] for workflow in WORKFLOWS.values() for step in steps(workflow) if "run" in step),
    ]
    for text in texts:
        assert set(re.findall(r"\bmake ([a-z][\w-]+)", text)) <= targets
        for script in re.findall(r"\bscripts/\w+\.sh", text):
            assert (ROOT / script).is_file(), script


def imported(module: str) -> set[str]:
    """The training package's modules that come with this one, itself among them."""
    found, new = set(), {module}
    while new:
        found |= new
        trees = [ast.parse((ROOT / CODE / f"{one}.py").read_text()) for one in new]
        names = {
            node.module or "" for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        new = {name.split(".")[1] for name in names if name.startswith("earmark_training.")} - found
    return found


@pytest.mark.parametrize(("stage", "modules"), [("prepare", ("corpus",)), ("train", ("corpus", "train"))])
def test_a_stage_is_out_of_date_when_the_code_that_it_runs_changes(stage: str, modules: tuple[str, ...]):
    code = {Path(one).stem for one in STAGES[stage]["deps"] if one.startswith(CODE)}
    assert code == set().union(*map(imported, modules))


def test_the_parameters_are_the_default_recipe_and_options_that_the_commands_have():
    presets = pytest.importorskip("earmark_training.model.recipe", exc_type=ImportError).PRESETS
    from earmark_training.__main__ import build_parser

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
