"""The page for people: made on the server, without a script from elsewhere, so that it works offline."""
