"""Which GPU optimization pays: nine topics, each with good and bad ways, checked, counted and timed. See docs/guide.md."""
