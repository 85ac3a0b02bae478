"""What the page carries so that it needs no network: chart and table libraries, its own script."""
