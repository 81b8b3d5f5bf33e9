"""What a web cache may do with an object, and what it is: by its name alone, so that every writer says the same.

Blobs are named by their content and never change: any cache may keep them for ever. Channels change: a cache may keep a copy, but must ask
before it answers with it (`no-cache` is that, and not a ban). Everything else is asked for anew each time: state that changes, or small
files that few read.
"""

_IMMUTABLE = ("mobile/blobs/", "mobile/versions/")
_FOREVER = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache, max-age=0"
_TYPES = {".json": "application/json", ".html": "text/html; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".png": "image/png"}
_BYTES = "application/octet-stream"


def cache_control(name: str) -> str:
    """The Cache-Control header of the object of that name in a store."""
    return _FOREVER if is_immutable(name) else _ASK_FIRST


def content_type(name: str) -> str:
    """The Content-Type header of the object of that name."""
    return _TYPES.get(name[name.rfind(".") :] if "." in name else "", _BYTES)


def is_immutable(name: str) -> bool:
    """Whether a cached copy of any age is as good as the object."""
    return name.startswith(_IMMUTABLE) or (name.startswith("hosted/") and name.endswith(".tflite"))
