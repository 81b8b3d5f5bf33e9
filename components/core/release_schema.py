"""The JSON schema of release.json, for consumers in other languages; `python -m components.core.release_schema` writes the file."""

import json
from pathlib import Path
from typing import Any

from components.core.release import Release

SCHEMA_FILE = Path(__file__).with_name("release.schema.json")


def release_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of release.json, made from the model that reads and writes it."""
    schema = Release.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def main() -> None:
    """Write release.schema.json beside this module."""
    SCHEMA_FILE.write_text(json.dumps(release_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
