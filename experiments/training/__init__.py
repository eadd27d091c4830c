"""The trainer that the scripts share."""
