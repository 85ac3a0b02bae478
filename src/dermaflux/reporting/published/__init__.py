"""The papers' tables on the page: what they state beside what was run here."""
