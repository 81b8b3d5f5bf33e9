"""The init container of a server pod: one release's cloud model, or a candidate's, verified, into the folder that the server loads."""
