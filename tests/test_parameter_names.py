"""Names and shapes of every packaged config's weights are kept: a renamed parameter would orphan saved runs.

After a change that is meant to rename some, or for a new config:
`TRIPTYCH_GOLDEN=write python -m pytest tests/test_parameter_names.py`.
"""

import os
from pathlib import Path

import pytest
from triptych.tasks.build import build_data, build_model, section
from triptych.tasks.config import merge, packaged

NAMES = Path(__file__).parent / "parameter_names"
#: Not the sizes, which are put over a recipe.
RECIPES = [name for name in packaged() if not name.startswith("sizes/")]


def parameters(name: str) -> str:
    """One line a weight: its name and its shape."""
    config = merge([name])
    data, model = build_data(config), build_model(section(config, "model").plain())
    data.attach(dict(model.tokenizers.items()))
    data.prepare_data()
    data.setup("fit")
    model.build(data.views(), data.facts())
    shapes = {key: "x".join(map(str, tensor.shape)) for key, tensor in model.state_dict().items()}
    return "".join(f"{key} {shapes[key]}".rstrip() + "\n" for key in sorted(shapes))


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_keep_their_names_and_shapes(name: str) -> None:
    file, found = NAMES / f"{name.replace('/', '-')}.txt", parameters(name)
    if os.environ.get("TRIPTYCH_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    assert found.splitlines() == file.read_text(encoding="utf-8").splitlines()
