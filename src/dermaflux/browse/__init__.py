"""A local page over the table, served by Datasette: filters, provenance and neighbours."""
