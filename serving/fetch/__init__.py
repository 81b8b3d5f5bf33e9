"""The init container of a server pod: one release's cloud model, verified, into the folder that the server loads."""
