"""Which GPU optimization pays: sixteen topics, each with good and bad variants of the same work. See docs/guide.md."""
