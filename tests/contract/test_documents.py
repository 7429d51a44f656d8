"""The documents say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

import services.consumer.settings
import services.publisher.settings
from services.kit.kafka import KafkaSettings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TABLES: dict[str, type[BaseSettings]] = {
    "Publisher": services.publisher.settings.Settings,
    "Consumer": services.consumer.settings.Settings,
    "Kafka": KafkaSettings,
}


def table(settings: type[BaseSettings]) -> str:
    """The rows that docs/configuration.md must have for one settings class."""
    prefix = settings.model_config.get("env_prefix", "")
    rows = []
    for name, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else "" if default is None else f"`{default}`"
        assert not isinstance(default, SecretStr)
        rows.append(f"| `{prefix}{name}`".upper() + f" | {shown} | {field.description} |")
    return "\n".join(rows)


@pytest.mark.parametrize("process", TABLES)
def test_every_setting_is_documented_as_it_is(process: str) -> None:
    """When this fails, put the rows below into the table of docs/configuration.md."""
    document = (ROOT / "docs" / "configuration.md").read_text()
    section = document.split(f"\n## {process}\n")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    assert "\n".join(found) == table(TABLES[process])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert missing == []


def test_decisions_have_numbers_of_their_own() -> None:
    names = [path.name for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md"]
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name) for name in names)
    assert len({name[:4] for name in names}) == len(names)


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"`?\bmake ([a-z-]+)\b(?=[`\s]*(?:$|[`#;(]))", document.read_text(), re.M)
    }
    assert named <= targets
