"""Container images that a site needs: found in what is deployed, and copied between registries and files, digest for digest."""
