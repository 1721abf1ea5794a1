"""The web page: what the read side knows, as HTML. It works without JavaScript, and is live with it."""
