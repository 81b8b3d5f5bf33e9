"""The JSON schemas of a channel's file and of the manifest in it, for consumers in other languages.

`python -m components.core.channel_schema` writes both files.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from components.core.channel import Channel
from components.core.envelope import Envelope

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
MANIFEST_SCHEMA = Path(__file__).with_name("channel.schema.json")
ENVELOPE_SCHEMA = Path(__file__).with_name("envelope.schema.json")


def manifest_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the manifest that is written now, made from the model that reads and writes it."""
    schema = _schema(Channel)
    schema["properties"]["schema"] = {"const": "dual.channel/v2", "title": "Schema", "type": "string"}
    schema["required"] = sorted({*schema["required"], "schema", "model", "staging"})
    return schema


def envelope_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the file."""
    return _schema(Envelope)


def main() -> None:
    """Write the schemas beside this module."""
    for path, schema in ((MANIFEST_SCHEMA, manifest_schema()), (ENVELOPE_SCHEMA, envelope_schema())):
        path.write_text(json.dumps(schema, indent=2) + "\n")


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": _DIALECT, **model.model_json_schema(by_alias=True, mode="serialization")}


if __name__ == "__main__":
    main()
