"""One small interface over a local folder, gs:// and s3://; nothing else in the code knows where a store is."""

from components.core.stores.address import open_store
from components.core.stores.base import Object, Store, join

__all__ = ["Object", "Store", "join", "open_store"]
