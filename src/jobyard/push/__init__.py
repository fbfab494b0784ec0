"""Jobs announced by Google Pub/Sub's push: the HTTP side of a worker that does not pull."""
